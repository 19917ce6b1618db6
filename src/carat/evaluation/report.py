"""Evaluation reports: the metrics of a split with their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.agreement import Agreement, measure_agreement
from carat.evaluation.bootstrap import Interval, intervals
from carat.evaluation.calibration.reliability import CalibrationReport
from carat.evaluation.conformal import DecisionRates
from carat.evaluation.floors import Floor
from carat.evaluation.graded import GradedReport, grade_scores
from carat.evaluation.metrics import LabelMetrics, Metrics, compute_metrics
from carat.evaluation.subsets import FEW, Subsets
from carat.evaluation.thresholds import apply_thresholds
from carat.utils.tables import Table

if TYPE_CHECKING:
    import pandas as pd


OPTIONAL = ("corpora", "graded", "calibration", "decisions", "floors", "subsets", "agreement")
"""Parts of a report that are left out of JSON if they are empty."""


@dataclass(frozen=True)
class Report:
    """Metrics of a split with 95 % intervals resampled by group.

    Args:
        split: split of the store.
        samples: number of scored samples.
        groups: number of groups (videos or dialogues) of these samples.
        thresholds: by label, in [0, 1], chosen on validation; on the scale of the scores.
        metrics: metrics of the split, and of each label in `metrics.labels`.
        intervals: (low, high) by metric; NaN if there is a single group.
        corpora: report of each corpus, in stores of several.
        calibration: reliability of the scores before and after calibration, if they are calibrated.
        decisions: error rates by label at a promised risk, if `load` was told one.
        floors: simple predictors beside the run, by name, if requested.
        subsets: metrics by value of an attribute, if requested.
        agreement: ceiling that disagreement of annotators sets, in stores with graded labels.
        graded: metrics against graded labels, in stores that have them.

    Example:
        report = carat.evaluate("demo-run", "demo-store")
        report.metrics.micro_f1, report.intervals["micro_f1"]
        report.to_frame(), report.label_frame()
    """

    split: str
    samples: int
    groups: int
    thresholds: dict[str, float]
    """By label, chosen on validation."""
    metrics: Metrics
    intervals: dict[str, Interval]
    corpora: dict[str, Report] = field(default_factory=dict)
    calibration: CalibrationReport | None = None
    decisions: dict[str, DecisionRates] = field(default_factory=dict)
    floors: dict[str, Floor] = field(default_factory=dict)
    subsets: Subsets | None = None
    agreement: Agreement | None = None
    graded: GradedReport | None = None

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data; undefined values are None, since JSON has no NaN."""
        plain = to_plain(asdict(self))
        assert isinstance(plain, dict)
        for report in (*plain["corpora"].values(), plain):
            for name in OPTIONAL:
                if not report[name]:
                    del report[name]
        return plain

    def to_frame(self) -> pd.DataFrame:
        """One row per metric: `metric`, `value`, and its 95 % interval in `low` and `high`.

        Metrics without an interval have None there.

        Raises:
            CaratError: pandas is not installed.
        """
        return Table(*self._rows()).to_frame()

    def label_frame(self) -> pd.DataFrame:
        """One row per label: `label`, `threshold`, `positives`, `predicted`, `precision`, `recall`, `f1`, …

        Raises:
            CaratError: pandas is not installed.
        """
        return Table(*self._label_rows()).to_frame()

    def _repr_html_(self) -> str:
        title = f"{self.split}: {self.samples} samples in {self.groups} groups"
        tables = [Table(*self._rows(), title, digits=3), *self._graded_tables()]
        labels = Table(*self._label_rows(), "Labels", digits=3).to_html(self.metrics.notes)
        return "\n".join([*(table.to_html() for table in tables), labels])

    def _graded_tables(self) -> list[Table]:
        return [] if self.graded is None else [self.graded.to_table(digits=3)]

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        values = {name: value for name, value in vars(self.metrics).items() if isinstance(value, float)}
        rows = [[name, value, *self.intervals.get(name, (None, None))] for name, value in values.items()]
        if self.graded is not None:
            rows += [[name, x, *self.graded.intervals[name]] for name, x in self.graded.means.items()]
        return ["metric", "value", "low", "high"], rows

    def _label_rows(self) -> tuple[list[str], list[list[Any]]]:
        rows = [[name, self.thresholds[name], *astuple(label)] for name, label in self.metrics.labels.items()]
        return ["label", "threshold", *(field.name for field in fields(LabelMetrics))], rows


class Calibrated(NamedTuple):
    """Calibrated scores (N, L), and thresholds by label on their scale."""

    scores: NDArray[Any]
    thresholds: Mapping[str, float]


def make_report(
    split: str,
    scores: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
    thresholds: Mapping[str, float],
    notes: Sequence[str] = (),
    corpora: NDArray[np.str_] | None = None,
    grades: NDArray[np.float32] | None = None,
    calibrated: Calibrated | None = None,
) -> Report:
    """Compute metrics and intervals of a split.

    Args:
        split: name of the split.
        scores: (N, L), in [0, 1].
        labels: (N, L), 0 or 1, NaN where unknown.
        groups: (N,) group names.
        thresholds: by label, in the order of the L axis.
        notes: notes to append to those of the metrics.
        corpora: (N,) corpus of each sample, which each get a report of their own.
        grades: (N, L) graded labels in [0, 1], NaN where unknown.
        calibrated: calibrated scores and thresholds, which the report shows; predictions are made from the
            others, and graded labels are compared with them.
    """
    predicted = apply_thresholds(scores, np.array(list(thresholds.values())))
    shown = calibrated or Calibrated(scores, thresholds)
    metrics = compute_metrics(shown.scores, predicted, labels, list(thresholds))
    metrics.notes.extend(notes)
    number = len(np.unique(groups))
    if number < 2:
        metrics.notes.append("a single group: there are no intervals")
    elif number < FEW:
        metrics.notes.append(f"intervals are from {number} groups, fewer than {FEW}: they are too narrow")
    return Report(
        split=split,
        samples=len(labels),
        groups=number,
        thresholds=dict(shown.thresholds),
        metrics=metrics,
        intervals=intervals(predicted, labels, groups),
        corpora={
            name: make_report(
                split,
                scores[rows],
                labels[rows],
                groups[rows],
                thresholds,
                grades=None if grades is None else grades[rows],
                calibrated=None
                if calibrated is None
                else Calibrated(calibrated.scores[rows], calibrated.thresholds),
            )
            for name in ([] if corpora is None else dict.fromkeys(corpora.tolist()))
            for rows in [corpora == name]
        },
        graded=None if grades is None else grade_scores(scores, grades, groups, list(thresholds)),
        agreement=None if grades is None else measure_agreement(predicted, labels, grades),
    )


def to_plain(value: Any) -> Any:
    """Convert nested mappings and sequences to plain data for JSON; undefined numbers become None."""
    if isinstance(value, Mapping):
        return {key: to_plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(x) for x in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
