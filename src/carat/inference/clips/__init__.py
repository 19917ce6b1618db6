"""Scores of a clip over time, and the files in which people look at them."""
