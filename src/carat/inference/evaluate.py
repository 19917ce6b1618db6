"""Evaluation of a run on a store."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from carat.data.store import Store, open_store
from carat.data.summary import check_measurable
from carat.evaluation.conformal import measure_decisions
from carat.evaluation.thresholds import apply_thresholds
from carat.inference.attributes import check_values, read_attribute
from carat.inference.loading import load
from carat.inference.predictor import Precision, Predictor

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from carat.evaluation.report import Report


def evaluate_split(
    predictor: Predictor, store: Store, split: str, *, floors: bool = False, by: str | None = None
) -> Report:
    """See `evaluate`."""
    from carat.evaluation.calibration.reliability import compare_reliability
    from carat.evaluation.floors import compare_with_floors, floor_notes
    from carat.evaluation.report import Calibrated, make_report
    from carat.evaluation.subsets import measure_subsets
    from carat.inference.floors import predict_floors

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
    predicted = apply_thresholds(raw, np.array(list(scale.raw_thresholds.values())))
    if floors:
        guesses, notes = predict_floors(store, rows, predictor.experiment.threshold)
        found = compare_with_floors(predicted, guesses, labels, groups)
        report = replace(report, floors=found)
        report.metrics.notes.extend([*notes, *floor_notes(found)])
    if by is not None:
        attribute, values = read_attribute(store, by)
        check_values(attribute, values[rows])
        subsets = measure_subsets(attribute, values[rows], predicted, labels, groups)
        report = replace(report, subsets=subsets)
        missing = int((values[rows] == "").sum())
        report.metrics.notes.append(subsets.summary())
        report.metrics.notes.extend([f"{missing} samples have no {attribute}"] if missing else [])
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
    floors: bool = False,
    by: str | None = None,
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
        floors: compare with simple predictors: the prior, and TF-IDF with logistic regression where the store
            has transcripts.
        by: measure parts of the split by "group", "corpus" or a column of a table, `FILE:COLUMN`.

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
    return evaluate_split(predictor, open_store(store), split, floors=floors, by=by)
