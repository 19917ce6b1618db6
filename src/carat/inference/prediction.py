"""Prediction of one sample: scores, labels and attribution."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.utils.tables import Table

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Prediction:
    """Scores, labels and attribution of one sample, as a `Predictor` returns them.

    Args:
        scores: by label, in [0, 1]; calibrated, if the run is and `load` was not told otherwise.
        labels: labels whose score is above the threshold searched on validation.
        attribution: by label, the present modality with the strongest evidence for it; empty for methods
            without attribution.
        text: the text that was scored; empty for other samples.
        words: by label, the words of the text with the largest attribution by occlusion, if requested.
        decisions: by label, "present", "absent" or "unsure", if `load` was told a risk.
        notes: what is unusual about the sample, with numbers; None if the run kept no reference of its
            training data.

    Example:
        store = carat.open_store("demo-store")
        prediction = carat.load("demo-run").predict(store[0].features)
        prediction.labels, prediction.scores["happy"], prediction.attribution["happy"]
    """

    scores: dict[str, float]
    """By label, in [0, 1]; calibrated, if the run is and `load` was not told otherwise."""
    labels: list[str]
    """Labels whose score is above the threshold searched on validation."""
    attribution: dict[str, str]
    """By label, the present modality with the strongest evidence for it; empty for methods without
    attribution."""
    text: str = ""
    """The text that was scored; empty for other samples."""
    words: dict[str, list[str]] = field(default_factory=dict)
    """By label, the words of the text with the largest attribution by occlusion, if requested."""
    decisions: dict[str, str] = field(default_factory=dict)
    """By label, "present", "absent" or "unsure", if `load` was told a risk."""
    notes: list[str] | None = None
    """What is unusual about the sample, with numbers; None if the run kept no reference of its training
    data."""

    @property
    def carried_by(self) -> dict[str, str]:
        """Earlier name of `attribution`; it will be removed in the next release."""
        warnings.warn("Prediction.carried_by is now Prediction.attribution", FutureWarning, stacklevel=2)
        return self.attribution

    def to_frame(self) -> pd.DataFrame:
        """One row per label: `label`, `score`, `present`; if available `attribution`, `decision`, `words`.

        Raises:
            CaratError: pandas is not installed.
        """
        return Table(*self._rows()).to_frame()

    def _repr_html_(self) -> str:
        columns, rows = self._rows()
        return Table(
            columns, [[_format(cell) for cell in row] for row in rows], self.text, digits=3
        ).to_html()

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        columns: dict[str, list[Any]] = {
            "label": list(self.scores),
            "score": list(self.scores.values()),
            "present": [name in self.labels for name in self.scores],
        }
        if self.attribution:
            columns["attribution"] = [self.attribution.get(name) for name in self.scores]
        if self.decisions:
            columns["decision"] = [self.decisions[name] for name in self.scores]
        if self.words:
            columns["words"] = [self.words.get(name, []) for name in self.scores]
        return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def make_predictions(
    scores: NDArray[np.float32],
    attribution: NDArray[np.int64],
    thresholds: Mapping[str, float],
    modalities: Sequence[str],
    shown: NDArray[Any] | None = None,
    decisions: NDArray[np.str_] | None = None,
    notes: Sequence[list[str]] | None = None,
) -> list[Prediction]:
    """Convert the outputs of a batch to predictions.

    Args:
        scores: (B, L), in [0, 1].
        attribution: (B, L) indices of modalities; −1 for methods without attribution.
        thresholds: by label, in the order of the L axis.
        modalities: names of the modalities, in the order of the M axis.
        shown: (B, L) scores to return; defaults to those that are compared with the thresholds.
        decisions: (B, L) present, absent or unsure, if a risk is promised.
        notes: what is unusual about each sample, if the run can tell.

    Returns:
        B predictions.

    >>> made = make_predictions(np.array([[0.9, 0.2]]), np.array([[1, -1]]), {"a": 0.5, "b": 0.5}, ["x", "y"])
    >>> made[0].scores, made[0].labels, made[0].attribution
    ({'a': 0.9, 'b': 0.2}, ['a'], {'a': 'y'})
    """
    return [
        Prediction(
            scores=dict(zip(thresholds, map(float, returned), strict=True)),
            labels=[name for (name, t), x in zip(thresholds.items(), row, strict=True) if x > t],
            attribution={name: modalities[m] for name, m in zip(thresholds, indices, strict=True) if m >= 0},
            notes=noted,
            decisions={} if called is None else dict(zip(thresholds, map(str, called), strict=True)),
        )
        for row, returned, indices, called, noted in zip(
            scores,
            scores if shown is None else shown,
            attribution,
            [None] * len(scores) if decisions is None else decisions,
            [None] * len(scores) if notes is None else notes,
            strict=True,
        )
    ]


def _format(cell: Any) -> Any:
    if isinstance(cell, bool):
        return "✓" if cell else ""
    return ", ".join(cell) if isinstance(cell, list) else cell
