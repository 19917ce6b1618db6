"""Names of the files of a store."""

from __future__ import annotations

LABELS = "labels.npy"
KNOWN = "known.npy"
"""Only in stores with unknown labels."""
INTENSITIES = "intensities.npy"
GRADES = "grades.npy"
SPLIT = "split.npy"
IDS = "ids.npy"
GROUPS = "groups.npy"
CORPORA = "corpora.npy"
"""Only in stores of several corpora."""
TRANSCRIPTS = "transcripts.npy"
TRANSCRIPT_OFFSETS = "transcripts_offsets.npy"
TEXT = "U"
"""Kind of data type of the arrays of texts, which have different widths."""


def feature_file(modality: str) -> str:
    """Return the file name of a modality's features, concatenated over samples: (ΣT, d)."""
    return f"features/{modality}.npy"


def offset_file(modality: str) -> str:
    """Return the file name of a modality's offsets: (N + 1,) int64, sample i is offsets[i]:offsets[i + 1]."""
    return f"features/{modality}_offsets.npy"
