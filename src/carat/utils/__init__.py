"""Helpers without knowledge of emotions."""
