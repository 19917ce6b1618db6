"""Checks of stores, features and raw data files."""
