"""Pretrained encoders that are fine-tuned jointly with the model."""
