"""Strictly increasing maps of scores to probabilities, without scikit-learn: inference needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Kind = Literal["none", "temperature", "platt", "isotonic", "beta"]
KINDS: tuple[Kind, ...] = ("none", "temperature", "platt", "beta", "isotonic")
"""Kinds of maps, from few parameters to many."""
EDGE = 1e-7
"""Distance from 0 and 1 that scores keep before logarithms; float32 resolves no less near 1."""
TIE_BREAK = 1e-3
"""Weight of the score itself in an isotonic map, so that steps of the regression keep the order of scores."""


@dataclass(frozen=True)
class ScoreMap:
    """Map of the scores of one label to probabilities, which keeps their order.

    Temperature, Platt and beta calibration are one family: sigmoid(a log s - b log(1 - s) + c), with a = b
    for Platt, and c = 0 as well for the temperature 1 / a. An isotonic map interpolates the points (x, y) and
    adds a thousandth of the score: (1 - TIE_BREAK) y(s) + TIE_BREAK s.

    Source: Platt 1999; Guo et al., ICML 2017 (temperature); Kull et al., AISTATS 2017 (beta).

    >>> ScoreMap("platt", a=2.0, b=2.0)(np.array([0.5, 0.8])).round(3)
    array([0.5  , 0.941])
    """

    kind: Kind = "none"
    a: float = 1.0
    b: float = 1.0
    c: float = 0.0
    x: Sequence[float] = ()
    """Scores of the points of an isotonic map, increasing."""
    y: Sequence[float] = ()
    """Frequencies at these scores, not decreasing."""

    def __call__(self, scores: NDArray[Any]) -> NDArray[np.float64]:
        """Map scores in [0, 1], of any shape, to probabilities in [0, 1] of this shape."""
        s = np.asarray(scores, dtype=np.float64)
        if self.kind == "none":
            return s
        if self.kind == "isotonic":
            return np.asarray((1 - TIE_BREAK) * np.interp(s, self.x, self.y) + TIE_BREAK * s)
        s = np.clip(s, EDGE, 1 - EDGE)
        return sigmoid(self.a * np.log(s) - self.b * np.log1p(-s) + self.c)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logistic function, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


def map_scores(scores: NDArray[Any], maps: Sequence[ScoreMap]) -> NDArray[np.float64]:
    """Map scores (N, L), one map per label."""
    columns = [score_map(column) for score_map, column in zip(maps, scores.T, strict=True)]
    return np.stack(columns, axis=1) if columns else np.asarray(scores, dtype=np.float64)


def map_thresholds(thresholds: Mapping[str, float], maps: Sequence[ScoreMap]) -> dict[str, float]:
    """Map thresholds by label; mapped scores are above them where scores were above the given ones."""
    values = zip(thresholds.items(), maps, strict=True)
    return {name: float(score_map(np.array(threshold))) for (name, threshold), score_map in values}
