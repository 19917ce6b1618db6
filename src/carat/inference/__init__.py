"""Inference with finished runs: prediction, evaluation, explanation and export."""
