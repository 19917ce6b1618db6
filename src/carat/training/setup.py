"""Validation and setup of training, before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from numpy.typing import NDArray

from carat.config.experiment import Experiment
from carat.data.loader import check_lengths, make_loader, truncation_notes, usable_rows
from carat.data.store import Store
from carat.data.summary import exclusion_notes, store_gaps, store_warnings, trainable_modalities
from carat.models.base import Model, TrainingData
from carat.models.build import build
from carat.models.sizes import check_memory
from carat.runs.origin import Origin
from carat.training.compilation import ROUND_TO
from carat.training.distributed import Processes
from carat.training.initialization import initialize, read_initial_run
from carat.training.sampling import choose_quotas
from carat.training.targets import choose_targets
from carat.utils.errors import ConfigError, DataError, RunError, did_you_mean

MIN_PROCESSES = 16
PROCESSES_PER_CORE = 4
"""Processes that a machine runs at most: so many per core, and no fewer than `MIN_PROCESSES`."""
PROCESS_BYTES, WORKER_BYTES = 300_000_000, 50_000_000
"""Memory of a training process and of a data loader, which shares most of its own with its parent."""
STATES_PER_LAYER = 8
"""Vectors per time step that a Transformer layer keeps for its gradient, at least."""


@dataclass
class Task:
    """A validated training run: experiment, data, model and loaders."""

    experiment: Experiment
    store: Store
    accelerator: str
    model: Model
    processes: Processes
    pad_to: dict[str, int]
    loaders: dict[str, Any]
    notes: list[str]
    origin: Origin | None = None
    """What was taken of the run `training.init_from`; None if the run folder continues."""
    teacher: str = ""
    """SHA-256 of the weights of the run `training.teacher`, if there is one."""


def prepare_task(
    experiment: Experiment,
    store: Store,
    processes: Processes,
    *,
    strict: bool = False,
    continued: Path | None = None,
) -> Task:
    """Validate all inputs before anything is written, and build model and loaders.

    Args:
        experiment: experiment to train.
        store: store with the splits train and valid.
        processes: rank of this process and number of processes.
        strict: refuse a store with gaps, see `carat.data.gaps.describe_gaps`, instead of noting them.
        continued: see `carat.training.initialization.continued_run`.

    Raises:
        ConfigError: the experiment does not match the store or the run `training.init_from`, or needs more
            memory or devices than there are.
        DataError: the store is damaged or, if strict, has gaps, a label is never known, or a sequence is too
            long.
        RunError: the device or the run `training.init_from` is not available.
    """
    accelerator = find_accelerator(experiment.training.accelerator)
    check_processes(experiment, accelerator, processes)
    store.verify()
    if strict and (gaps := store_gaps(store)):
        raise DataError(f"{store.folder}: {gaps[0]} (--strict)")
    modalities = choose_modalities(store, experiment.data.modalities)
    check_known_labels(store, modalities)
    modality_info = {m: store.manifest.modalities[m] for m in modalities}
    initial = read_initial_run(experiment) if continued is None else None
    start = initial.folder if initial else continued
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    model = build(experiment.method, experiment.encoders, store.label_names, modality_info, start=start)
    origin = initialize(model, experiment, modality_info, initial) if initial else None
    pad_to = {m: _padded_length(store, m, model.max_length[m], experiment.data.padding) for m in modalities}
    targets = choose_targets(store, model, experiment, accelerator)
    if accelerator == "cpu":
        _check_batches(store, experiment, model.max_length)
    loaders, notes = _loaders(
        store, experiment, model.max_length, pad_to, accelerator == "gpu", processes, targets.values
    )
    notes += [*store_warnings(store), *targets.notes]
    return Task(
        experiment, store, accelerator, model, processes, pad_to, loaders, notes, origin, targets.teacher
    )


def find_accelerator(wanted: str) -> str:
    """Resolve `training.accelerator` to "cpu" or "gpu".

    Raises:
        RunError: a GPU is required, but not available.
    """
    if wanted == "gpu" and not torch.cuda.is_available():
        raise RunError("training.accelerator is gpu, but no GPU is available to PyTorch; use auto or cpu")
    if wanted == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return wanted


def check_processes(experiment: Experiment, accelerator: str, processes: Processes) -> None:
    """Check that this machine can run the training processes and data loaders of an experiment.

    Raises:
        ConfigError: there are too many for its GPUs, cores or memory.
    """
    devices = experiment.training.devices if processes.size == 1 else 1
    if accelerator == "gpu" and devices > torch.cuda.device_count():
        raise ConfigError(
            f"training.devices is {devices}, but this machine has {torch.cuda.device_count()} GPUs"
        )
    cores = os.cpu_count() or 1
    allowed = max(MIN_PROCESSES, PROCESSES_PER_CORE * cores)
    workers = experiment.data.workers or 0
    for key, number in (("training.devices", devices), ("data.workers", workers)):
        if number > allowed:
            raise ConfigError(
                f"{key} is {number}, but this machine has {cores} cores, for {allowed} processes at most"
            )
    if devices > 1 or workers:
        check_memory(
            (devices > 1) * devices * PROCESS_BYTES + 2 * devices * workers * WORKER_BYTES,
            f"training.devices {devices} with data.workers {workers}",
            "start fewer processes",
        )


def _check_batches(store: Store, experiment: Experiment, max_length: Mapping[str, int]) -> None:
    """Check that a batch of average length fits into memory: its features, and the hidden states of encoders.

    Raises:
        ConfigError: it does not.
    """
    method, size = experiment.method, experiment.data.batch_size
    hidden, encoder = getattr(method, "hidden", 0), getattr(method, "encoder", None)
    rows, numbers = store.indices("train"), 0.0
    for m in choose_modalities(store, experiment.data.modalities):
        info = store.manifest.modalities[m]
        lengths = np.minimum(store.lengths(m)[rows], max_length[m])
        layers = encoder.layers if encoder is not None else 0
        if isinstance(layers, Mapping):
            layers = layers.get(m, getattr(encoder, "other_layers", 0))
        states = STATES_PER_LAYER * hidden * layers if info.has_features else 0
        numbers += float(lengths.mean()) * (info.width + states) if len(lengths) else 0.0
    check_memory(
        int(4 * min(size, len(rows)) * numbers / experiment.training.devices),
        f"a batch of data.batch_size {size}",
        "make data.batch_size or method.hidden smaller",
    )


def choose_modalities(store: Store, wanted: list[str] | None) -> list[str]:
    """Resolve `data.modalities` to modalities in the order of the M axis.

    None selects all modalities that a training sample of the store has: others cannot be learned.

    Raises:
        ConfigError: a modality is unknown, duplicated or absent from training, or the list is empty.
    """
    trainable = trainable_modalities(store)
    if wanted is None:
        return trainable
    for m in wanted:
        if m not in store.modalities:
            hint = did_you_mean(m, store.modalities) or f"; available: {', '.join(store.modalities)}"
            raise ConfigError(f"data.modalities: the store has no modality '{m}'{hint}")
        if m not in trainable:
            raise ConfigError(f"data.modalities: no training sample of the store has {m}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(f"data.modalities: expected distinct modalities, at least one, found {wanted}")
    return wanted


def check_known_labels(store: Store, modalities: list[str]) -> None:
    """Check that each label is known in training, and one of them in validation.

    Raises:
        DataError: it is not, so that a label cannot be learned or an epoch not be chosen.
    """
    known = {
        split: np.any(store.known[usable_rows(store, split, modalities)], axis=0)
        for split in ("train", "valid")
    }
    if never := [name for name, x in zip(store.label_names, known["train"], strict=True) if not x]:
        raise DataError(
            f"{store.folder}: no training sample has a known label '{never[0]}', so that it cannot be "
            "learned; build the store without this label"
        )
    if not known["valid"].any():
        raise DataError(
            f"{store.folder}: no sample of split 'valid' has a known label, so that no epoch can be chosen"
        )


def _padded_length(store: Store, modality: str, max_length: int, padding: str) -> int:
    """Length to which sequences are padded with unmasked zeros; 0 if padding is masked."""
    return min(int(store.lengths(modality).max()), max_length) if padding == "unmasked" else 0


def _loaders(
    store: Store,
    experiment: Experiment,
    max_length: Mapping[str, int],
    pad_to: dict[str, int],
    gpu: bool,
    processes: Processes,
    targets: NDArray[np.float32] | None,
) -> tuple[dict[str, Any], list[str]]:
    """Loaders by split, and notes on excluded samples and truncated sequences."""
    data = experiment.data
    modalities = list(pad_to)
    loaders: dict[str, Any] = {}
    notes: list[str] = []
    for split in ("train", "valid"):
        rows = usable_rows(store, split, modalities)
        notes += exclusion_notes(store, split, modalities)
        if not data.truncation:
            check_lengths(store, rows, modalities, max_length)
        else:
            notes += truncation_notes(store, split, modalities, max_length)
        loaders[split] = make_loader(
            store,
            rows,
            modalities,
            batch_size=data.batch_size,
            max_length=max_length,
            pad_to=pad_to,
            shuffle=split == "train",
            bucket=data.bucket,
            seed=experiment.seed,
            workers=data.workers if data.workers is not None else 2 * gpu,
            pin_memory=gpu,
            round_to=ROUND_TO if experiment.training.graph != "eager" else 1,
            shard=processes.local_rows if processes.size > 1 else None,
            quotas=choose_quotas(store, rows, data.sampling) if split == "train" else None,
            targets=targets if split == "train" else None,
        )
    return loaders, notes


def training_data(task: Task) -> TrainingData:
    """Training split in the order of the store, for `Model.prepare`; features are loaded lazily."""
    store, pad_to = task.store, task.pad_to
    rows = usable_rows(store, "train", list(pad_to))
    loader = make_loader(
        store,
        rows,
        list(pad_to),
        batch_size=task.experiment.data.batch_size,
        max_length=task.model.max_length,
        pad_to=pad_to,
    )
    labels = torch.from_numpy(store.targets(rows))
    return TrainingData(labels, ((batch.features, batch.masks, batch.labels) for batch in loader))
