"""Encoders that read tokens or sound in front of any method, and learn along with it."""
