"""What a model card says of an evaluation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.bootstrap import Interval, label_intervals
from carat.evaluation.report import Report


def summarize_report(
    report: Report, store: str, predicted: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any]
) -> dict[str, Any]:
    """Summarize a report as plain data, with intervals of the F1 of each label; undefined values are None.

    Args:
        report: of a split.
        store: name of the store.
        predicted: (N, L) predictions of the report.
        labels: (N, L), 0 or 1, NaN where unknown.
        groups: (N,) group names.
    """
    metrics = {name: x for name, x in vars(report.metrics).items() if isinstance(x, float)}
    by_label = label_intervals(predicted, labels, groups, list(report.metrics.labels))
    return {
        "store": store,
        "split": report.split,
        "samples": report.samples,
        "groups": report.groups,
        "metrics": {
            name: {"value": _finite(x), "interval": _interval(report.intervals.get(name))}
            for name, x in metrics.items()
        },
        "labels": {
            name: {
                "positives": x.positives,
                "f1": _finite(x.f1),
                "interval": _interval(by_label[name]),
                "precision": _finite(x.precision),
                "recall": _finite(x.recall),
                "average_precision": _finite(x.average_precision),
            }
            for name, x in report.metrics.labels.items()
        },
        "notes": list(report.metrics.notes),
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(interval: Interval | None) -> list[float] | None:
    return None if interval is None or not np.isfinite(interval).all() else [float(x) for x in interval]
