"""Label sets of the corpora, in their published order: the order of the L axis."""

from __future__ import annotations

MOSEI = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""CMU-MOSEI; also those of the built-in benchmark."""
M3ED = ("happy", "neutral", "sad", "disgust", "anger", "fear", "surprise")
IEMOCAP = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
