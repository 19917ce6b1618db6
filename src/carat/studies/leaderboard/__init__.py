"""Leaderboards: all methods tuned, trained and evaluated equally on the same data."""
