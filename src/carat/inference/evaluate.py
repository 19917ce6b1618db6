"""Evaluation of a run on a store."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from carat.data.store import Store, open_store
from carat.data.summary import check_measurable
from carat.evaluation.conformal import measure_decisions
from carat.inference.loading import load
from carat.inference.predictor import Precision, Predictor

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from carat.evaluation.report import Report


def evaluate_split(predictor: Predictor, store: Store, split: str) -> Report:
    """See `Predictor.evaluate`."""
    from carat.evaluation.calibration.reliability import compare_reliability
    from carat.evaluation.report import Calibrated, make_report

    predictor.check_labels(store)
    check_measurable(store, split)
    rows, raw, labels = predictor.score(store, split, calibrated=False)
    scale, groups = predictor.scale, store.groups[rows]
    scores = scale(raw)
    report = make_report(
        split,
        raw,
        labels,
        groups,
        scale.raw_thresholds,
        predictor.notes(store, [split]),
        None if store.corpora is None else store.corpora[rows],
        None if store.grades is None else store.soft_targets(rows),
        Calibrated(scores, scale.thresholds) if scale.calibrated else None,
    )
    if scale.calibrated:
        kinds = {name: x.kind for name, x in zip(predictor.labels, scale.maps, strict=True)}
        report = replace(report, calibration=compare_reliability(raw, scores, labels, groups, kinds))
    if scale.decides:
        rates = measure_decisions(scale.decide(raw), labels, groups, predictor.labels)
        report = replace(report, decisions=rates)
        report.metrics.notes.extend(scale.guarantee())
    return report


def evaluate(
    run: Predictor | str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    split: str = "test",
    *,
    device: str | None = None,
    precision: Precision = "float32",
    calibrated: bool = True,
    risk: float | None = None,
    false_discovery: float | None = None,
) -> Report:
    """Evaluate a run on a split, with the thresholds that were chosen on validation during training.

    Args:
        run: folder of a run, a `TrainedRun`, or a `Predictor`, whose own settings are kept.
        store: store with the labels of the run, or its folder.
        split: split of the store.
        device: PyTorch device, e.g. "cpu" or "cuda:1"; defaults to a GPU if one is available.
        precision: "float32" or "bf16", see `carat.load`.
        calibrated: measure calibrated scores, see `carat.load`.
        risk: promised false-negative rate, see `carat.load`; the report has what it is on this split.
        false_discovery: promised false-discovery rate, see `carat.load`.

    Returns:
        Metrics with 95 % intervals, bootstrapped by group (video or dialogue).

    Raises:
        RunError: there is no run, or it is unfinished or corrupt.
        DataError: the store is corrupt, does not fit the run, or has no such split.

    Example:
        report = carat.evaluate("demo-run", "demo-store", split="valid")
        report.metrics.micro_f1, report.intervals["micro_f1"]
    """
    predictor = (
        run
        if isinstance(run, Predictor)
        else load(
            run,
            device=device,
            precision=precision,
            calibrated=calibrated,
            risk=risk,
            false_discovery=false_discovery,
        )
    )
    return predictor.evaluate(open_store(store), split)
