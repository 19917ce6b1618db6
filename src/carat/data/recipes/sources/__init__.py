"""Feature sources that a recipe can name."""
