"""What any predictor can reach against a single annotator, where shares of votes are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.thresholds import GRID, f1_from_counts


@dataclass(frozen=True)
class Agreement:
    """Expected micro-F1 against one annotator drawn at random, who names a label with probability its grade.

    Counts are expected ones: a prediction of a label with grade g is right with g and wrong with 1 - g.
    """

    run: float
    """Of the run's predictions."""
    labels: float
    """Of the labels of the store, as predictions."""
    ceiling: float
    """Of the best predictions by a threshold of the grades themselves: the most that can be reached."""


def measure_agreement(predicted: NDArray[Any], labels: NDArray[Any], grades: NDArray[Any]) -> Agreement:
    """Compare predictions with the ceiling that disagreement of annotators sets.

    Args:
        predicted: (N, L), 0 or 1.
        labels: (N, L), 0 or 1, NaN where unknown.
        grades: (N, L) shares of annotators who name a label, in [0, 1], NaN where unknown.
    """
    known = ~np.isnan(grades)
    g = grades[known].astype(np.float64)
    best = max(_expected_f1(g >= threshold, g) for threshold in (*GRID, 1.0))
    return Agreement(
        _expected_f1(predicted.astype(bool)[known], g),
        _expected_f1(np.nan_to_num(labels[known]).astype(bool), g),
        best,
    )


def _expected_f1(guess: NDArray[np.bool_], grades: NDArray[np.float64]) -> float:
    tp, total = grades[guess].sum(), grades.sum()
    return float(f1_from_counts(tp, guess.sum() - tp, total - tp))
