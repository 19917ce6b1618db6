"""Targets of the cross-entropies: the labels, graded labels, or the scores of a teacher beside them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carat.config.experiment import Experiment
from carat.data.loader import usable_rows
from carat.data.store import Store
from carat.models.base import Model
from carat.runs.batches import load_batches, score_batches
from carat.runs.card import RunCard
from carat.runs.compatibility import check_fit
from carat.runs.folder import WEIGHTS
from carat.runs.locating import locate
from carat.runs.model import load_model
from carat.utils.errors import CaratError, ConfigError, RunError
from carat.utils.reading import hash_file

TEACHER = "training.teacher"


@dataclass(frozen=True)
class Targets:
    """What training compares scores with."""

    values: NDArray[np.float32] | None = None
    """(rows of the store, L) in [0, 1], NaN where unknown; None: the labels."""
    notes: Sequence[str] = ()
    teacher: str = ""
    """SHA-256 of the teacher's weights, if there is one."""


def choose_targets(store: Store, model: Model, experiment: Experiment, accelerator: str) -> Targets:
    """Choose what training compares scores with.

    Args:
        store: store with a training split.
        model: model to train.
        experiment: its experiment.
        accelerator: "cpu" or "gpu", for the teacher.

    Raises:
        ConfigError: the method takes binary labels only, or the store has no graded ones.
        CaratError: the teacher cannot be loaded, or does not fit the store.
    """
    method, data, training = experiment.method.name, experiment.data, experiment.training
    for key in ("data.target",) * (data.target == "graded") + (TEACHER,) * (training.teacher is not None):
        if not model.takes_targets:
            raise ConfigError(f"{key}: method {method} takes binary labels only")
    if data.target == "graded" and store.grades is None:
        raise ConfigError(
            f"data.target is graded, but {store.folder} has binary labels only; build it with labels: "
            "{target: graded}"
        )
    graded = store.grades is not None and data.target != "binary"
    if graded and not model.takes_targets:
        return Targets(
            notes=[f"{method} takes binary labels only: the graded ones of the store are not used"]
        )
    if training.teacher is None:
        return Targets(store.soft_targets() if graded else None)
    targets = np.array(store.soft_targets() if graded else store.targets())
    try:
        return _mix(targets, store, locate(training.teacher), training.teacher_weight, accelerator)
    except (CaratError, OSError) as error:
        kind = type(error) if isinstance(error, CaratError) else RunError
        raise kind(f"{TEACHER}: {error}") from error


def _mix(
    targets: NDArray[np.float32], store: Store, folder: Path, weight: float, accelerator: str
) -> Targets:
    """Mix the teacher's scores into the targets (rows of the store, L) of the training split, in place.

    Raises:
        CaratError: the teacher cannot be loaded, does not fit the store, or has none of its labels.
    """
    card, experiment, model = load_model(folder)
    check_fit(str(folder), card, str(store.folder), None, store.manifest.modalities)
    shared = [name for name in store.label_names if name in card.labels]
    if not shared:
        raise ConfigError(f"{folder} has none of the labels {', '.join(store.label_names)}")
    rows, scores = score_training_split(model, card, experiment, store, accelerator)
    for name in shared:
        own, taught = store.label_names.index(name), scores[:, card.labels.index(name)]
        before = targets[rows, own]
        mixed = (1 - weight) * before + weight * taught
        targets[rows, own] = np.where(np.isnan(before), taught, mixed)
    lacking = [name for name in store.label_names if name not in shared]
    digest = card.digests.get(WEIGHTS) or hash_file(folder / WEIGHTS)
    note = f"{weight:g} of a target is the score of {folder} (weights {digest[:16]})"
    return Targets(targets, [note + (f"; it has no {', '.join(lacking)}" if lacking else "")], digest)


def score_training_split(
    model: Model, card: RunCard, experiment: Experiment, store: Store, accelerator: str
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score the training split with a trained model.

    Args:
        model: model of a run.
        card: its card.
        experiment: its experiment.
        store: store that fits it.
        accelerator: "cpu" or "gpu".

    Returns:
        Rows of the store (n,) with a modality of the run, and their scores (n, L).
    """
    rows = usable_rows(store, "train", [m for m in card.modalities if m in store.modalities])
    batches = load_batches(model, card, experiment, store, rows, "Scoring with the teacher")
    return score_batches(model, batches, len(card.labels), accelerator)
