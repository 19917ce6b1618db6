"""Calibration of scores: maps, their choice on validation, reliability with intervals, and diagrams."""
