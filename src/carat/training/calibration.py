"""Calibration of a trained model on the validation split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carat.data.loader import make_loader, usable_rows
from carat.evaluation.calibration.fitting import calibrate
from carat.evaluation.conformal import RISKS, fit_bounds
from carat.runs.calibration import RunCalibration
from carat.training.setup import Task


def calibrate_task(task: Task) -> RunCalibration:
    """Learn on validation how the scores of the model of a task become probabilities and decisions."""
    store, split = task.store, "valid"
    rows, scores = score_split(task, split)
    labels, groups, names = store.targets(rows), store.groups[rows], store.label_names
    found = calibrate(scores, labels, groups, names, task.experiment.calibration.kind)
    return RunCalibration.model_validate(
        {
            "store": store.manifest.name,
            "fingerprint": store.manifest.fingerprint,
            "split": split,
            "samples": len(rows),
            "groups": len(np.unique(groups)),
            "labels": found.to_records(),
            "risks": RISKS,
            "bounds": fit_bounds(scores, labels, groups, names),
        }
    )


@torch.inference_mode()
def score_split(task: Task, split: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score a split with the model of a task: rows of the store (N,) and scores (N, L)."""
    model, modalities = task.model.eval(), list(task.pad_to)
    device = torch.device("cuda" if task.accelerator == "gpu" else "cpu")
    model.to(device)
    rows = usable_rows(task.store, split, modalities)
    loader: Any = make_loader(
        task.store,
        rows,
        modalities,
        batch_size=task.experiment.data.batch_size,
        max_length=model.max_length,
        pad_to=task.pad_to,
    )
    parts, order = [np.zeros((0, len(task.store.label_names)), np.float32)], [np.zeros(0, np.int64)]
    for batch in loader:
        order.append(batch.rows.numpy())
        moved = batch.to(device)
        parts.append(model.score(moved.features, moved.masks).scores.float().cpu().numpy())
    model.to("cpu")
    return np.concatenate(order), np.concatenate(parts)
