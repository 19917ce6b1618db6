"""Explanation of a trained model in figures, each with its data as CSV."""
