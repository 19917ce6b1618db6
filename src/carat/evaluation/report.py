"""Evaluation reports: the metrics of a split with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.bootstrap import Interval, intervals
from carat.evaluation.metrics import Metrics, compute_metrics
from carat.evaluation.thresholds import apply_thresholds


@dataclass(frozen=True)
class Report:
    """Metrics of a split with 95 % intervals resampled by group."""

    split: str
    samples: int
    groups: int
    thresholds: dict[str, float]
    """By label; found on validation."""
    metrics: Metrics
    intervals: dict[str, Interval]

    def to_json(self) -> dict[str, Any]:
        """Plain data; undefined values are None, since JSON has no nan."""
        plain = _plain(asdict(self))
        assert isinstance(plain, dict)
        return plain


def make_report(
    split: str,
    scores: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
    thresholds: Mapping[str, float],
    notes: Sequence[str] = (),
) -> Report:
    """Evaluate scores (N, L) against labels (N, L) with thresholds by label name."""
    predicted = apply_thresholds(scores, np.array(list(thresholds.values())))
    metrics = compute_metrics(scores, predicted, labels, list(thresholds))
    metrics.notes.extend(notes)
    if len(np.unique(groups)) < 2:
        metrics.notes.append("a single group: there are no intervals")
    return Report(
        split=split,
        samples=len(labels),
        groups=len(np.unique(groups)),
        thresholds=dict(thresholds),
        metrics=metrics,
        intervals=intervals(predicted, labels, groups),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
