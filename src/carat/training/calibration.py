"""Calibration of a trained model on the validation split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.loader import make_loader, usable_rows
from carat.evaluation.calibration.fitting import calibrate
from carat.evaluation.conformal import RISKS, fit_bounds
from carat.evaluation.report import Calibrated, make_report
from carat.evaluation.summary import summarize_report
from carat.evaluation.thresholds import apply_thresholds
from carat.runs.batches import score_batches
from carat.runs.calibration import RunCalibration
from carat.training.reference import fit_references
from carat.training.setup import Task


@dataclass(frozen=True)
class Validated:
    """What is learnt of a trained model on the validation split."""

    calibration: RunCalibration
    evaluation: dict[str, Any]
    """Metrics with intervals, for the model card."""
    references: dict[str, NDArray[Any]]
    """Distribution of the data, see `carat.training.reference`."""


def validate_task(task: Task, thresholds: Mapping[str, float]) -> Validated:
    """Score the validation split with the model of a task, and learn to calibrate its scores.

    Args:
        task: its model has the weights that are kept.
        thresholds: of its scores, by label.
    """
    store, split = task.store, "valid"
    rows, scores = score_split(task, split)
    labels, groups, names = store.targets(rows), store.groups[rows], store.label_names
    found = calibrate(scores, labels, groups, names, task.experiment.calibration.kind)
    calibration = RunCalibration.of_split(
        store.manifest, split, groups, found.to_records(), RISKS, fit_bounds(scores, labels, groups, names)
    )
    note = "epoch, thresholds and calibration were chosen on this split, so that metrics are optimistic"
    report = make_report(
        split,
        scores,
        labels,
        groups,
        thresholds,
        [note],
        calibrated=Calibrated(found.held_out, thresholds),
    )
    predicted = apply_thresholds(scores, np.array(list(thresholds.values())))
    return Validated(
        calibration,
        summarize_report(report, store.manifest.name, predicted, labels, groups),
        fit_references(task, scores, np.array(list(thresholds.values()))),
    )


def score_split(task: Task, split: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score a split with the model of a task: rows of the store (N,) and scores (N, L)."""
    rows = usable_rows(task.store, split, list(task.pad_to))
    loader = make_loader(
        task.store,
        rows,
        list(task.pad_to),
        batch_size=task.experiment.data.batch_size,
        max_length=task.model.max_length,
        pad_to=task.pad_to,
    )
    return score_batches(task.model, loader, len(task.store.label_names), task.accelerator)
