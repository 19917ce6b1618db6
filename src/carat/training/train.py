"""From experiment and store to a finished run folder."""

from __future__ import annotations

import csv
import logging
import math
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    EMAWeightAveraging,
    ModelCheckpoint,
    RichProgressBar,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from carat import run
from carat.config import Experiment, load_experiment
from carat.data.batches import check_lengths, make_loader, usable_rows
from carat.data.store import Store, open_store
from carat.data.summary import cautions, left_out
from carat.errors import ConfigError, RunError, did_you_mean
from carat.evaluation.reports import draw_curves
from carat.memory import peak_gb
from carat.methods import Geometry, TrainingData, build_method
from carat.training.compilation import ROUND_TO, compile_method
from carat.training.module import MONITOR, MethodModule

PRECISION = {"float32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class TrainedRun:
    """A finished training."""

    folder: Path
    card: run.RunCard


def train(
    experiment: Experiment | Mapping[str, Any] | str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> TrainedRun:
    """Train a method and write a run folder.

    Everything that can be checked is checked before anything is written. After each epoch the whole
    validation split is scored and its best threshold searched; the epoch with the best validation micro-F1
    is kept. The test split is not looked at.

    Args:
        experiment: an `Experiment`, a nested mapping of what differs from the paper's, or a YAML file.
        store: a store or its folder, with splits `train` and `valid`.
        out: folder of the run to make.
        overwrite: replace an existing run.

    Raises:
        ConfigError: the experiment is wrong.
        DataError: the store is damaged or does not fit the experiment.
        RunError: the folder is taken, or the device is not there.
    """
    if not isinstance(experiment, Experiment):
        if isinstance(experiment, Mapping):
            experiment = load_experiment(overrides=experiment)
        else:
            experiment = load_experiment(experiment)
    out = Path(out)
    run.prepare_folder(out, overwrite)
    accelerator = find_accelerator(experiment.training.accelerator)
    store = store if isinstance(store, Store) else open_store(store)
    store.verify()
    modalities = choose_modalities(store, experiment.data.modalities)
    geometry = Geometry(tuple(store.label_names), {m: store.manifest.modalities[m].width for m in modalities})
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    method = build_method(experiment.method, geometry)
    pad_to = {m: _padded_length(store, m, method.max_length[m], experiment.data.padding) for m in modalities}
    loaders, notes = _loaders(store, experiment, method.max_length, pad_to, accelerator == "gpu")

    notes += cautions(store)
    method.prepare(_training_data(store, experiment, method.max_length, pad_to))
    if experiment.training.graph != "eager":
        problem = compile_method(method, experiment.training.graph, accelerator)
        notes += [problem] if problem else []
    if out.exists():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    environment = run.describe_environment()
    run.write_json(out / run.ENVIRONMENT, environment)
    run.write_experiment(out, experiment)
    steps = -(-len(loaders["train"]) // experiment.training.accumulate) * experiment.training.epochs
    module = MethodModule(
        method, experiment.training, store.label_names, experiment.threshold.kind, steps, experiment.seed
    )
    started = time.monotonic()
    _fit(module, loaders, experiment, accelerator, out)
    spent = {
        "seconds": round(time.monotonic() - started, 1),
        "epochs": len(module.history),
        "peak_gb": round(peak_gb(), 3),
        "parameters": method.learnt,
    }
    run.write_json(out / run.ENVIRONMENT, environment | spent)
    return _finish(module, store, pad_to, notes, out)


def find_accelerator(wanted: str) -> str:
    """The kind of device to train on, "cpu" or "gpu".

    Raises:
        RunError: a GPU was asked for and there is none.
    """
    if wanted == "gpu" and not torch.cuda.is_available():
        raise RunError("training.accelerator is gpu, but PyTorch finds no GPU; use auto or cpu")
    if wanted == "auto":
        return "gpu" if torch.cuda.is_available() else "cpu"
    return wanted


def choose_modalities(store: Store, wanted: list[str] | None) -> list[str]:
    """The modalities to use, in order; all of the store's when None.

    Raises:
        ConfigError: unknown, named twice, or none.
    """
    if wanted is None:
        return store.modalities
    for m in wanted:
        if m not in store.modalities:
            hint = did_you_mean(m, store.modalities) or f"; it has: {', '.join(store.modalities)}"
            raise ConfigError(f"data.modalities: the store has no modality '{m}'{hint}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise ConfigError(f"data.modalities: name each modality once, found {wanted}")
    return wanted


def _padded_length(store: Store, modality: str, max_length: int, padding: str) -> int:
    """How many steps of a sequence are visible at least: 0 when padding is masked."""
    return min(int(store.lengths(modality).max()), max_length) if padding == "visible" else 0


def _loaders(
    store: Store, experiment: Experiment, max_length: Mapping[str, int], pad_to: dict[str, int], gpu: bool
) -> tuple[dict[str, Any], list[str]]:
    data = experiment.data
    modalities = list(pad_to)
    loaders: dict[str, Any] = {}
    notes: list[str] = []
    for split in ("train", "valid"):
        rows = usable_rows(store, split, modalities)
        notes += left_out(store, split, modalities)
        if data.long == "error":
            check_lengths(store, rows, modalities, max_length)
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
        )
    return loaders, notes


def _training_data(
    store: Store, experiment: Experiment, max_length: Mapping[str, int], pad_to: dict[str, int]
) -> TrainingData:
    """The training split in the store's order, read only if a method asks for it."""
    rows = usable_rows(store, "train", list(pad_to))
    size = experiment.data.batch_size
    loader = make_loader(store, rows, list(pad_to), batch_size=size, max_length=max_length, pad_to=pad_to)
    labels = torch.from_numpy(store.labels[rows].astype("float32"))
    return TrainingData(labels, ((batch.features, batch.masks, batch.labels) for batch in loader))


def _fit(
    module: MethodModule, loaders: dict[str, Any], experiment: Experiment, accelerator: str, out: Path
) -> None:
    config = experiment.training
    checkpoint = ModelCheckpoint(
        dirpath=out / run.CHECKPOINTS,
        filename="best",
        monitor=MONITOR,
        mode="max",
        save_last=True,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [checkpoint]
    if sys.stderr.isatty():
        callbacks.append(ProgressBar())
    if config.average and module.method.by_gradient:
        callbacks.insert(0, EMAWeightAveraging(decay=config.average, use_buffers=False))
    if config.early_stopping:
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=config.early_stopping))
    logs = out / run.LOGS
    with _quiet_lightning():
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=1,
            precision=PRECISION[config.precision],  # type: ignore[arg-type]
            max_epochs=config.epochs if module.method.by_gradient else 1,
            accumulate_grad_batches=config.accumulate,
            callbacks=callbacks,
            logger=[CSVLogger(logs, name="csv", version=""), TensorBoardLogger(logs, name="tb", version="")],
            num_sanity_val_steps=0,
            enable_progress_bar=sys.stderr.isatty(),
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, loaders["train"], loaders["valid"])
        except SystemExit as stop:  # how Lightning ends on Ctrl-C
            if trainer.interrupted:
                message = f"{out} is unfinished; train again with --overwrite"
                raise KeyboardInterrupt(message) from stop
            raise
    best = torch.load(out / run.CHECKPOINTS / "best.ckpt", map_location="cpu", weights_only=True)
    prefix = "method."
    weights = {k.removeprefix(prefix): v for k, v in best["state_dict"].items() if k.startswith(prefix)}
    module.method.load_state_dict(weights)


def _finish(
    module: MethodModule, store: Store, pad_to: dict[str, int], notes: list[str], out: Path
) -> TrainedRun:
    scores = [row[MONITOR] for row in module.history]
    best = scores.index(max(scores))
    _write_history(module.history, out / run.METRICS)
    draw_curves(module.history, best + 1, out / run.CURVES)
    run.write_weights(out, module.method.state_dict())
    described = store.manifest.modalities
    card = run.RunCard(
        labels=store.label_names,
        modalities={
            m: run.ModalityCard(
                **described[m].model_dump(include={"width", "source", "transform"}), pad_to=steps
            )
            for m, steps in pad_to.items()
        },
        store=store.manifest.name,
        fingerprint=store.manifest.fingerprint,
        epoch=best + 1,
        thresholds=dict(zip(store.label_names, module.thresholds[best], strict=True)),
        validation={
            k.removeprefix("valid/"): v if math.isfinite(v) else None
            for k, v in module.history[best].items()
            if k.startswith("valid/")
        },
        notes=notes,
    )
    run.write_json(out / run.CARD, card.model_dump())
    return TrainedRun(out, card)


def _write_history(history: list[dict[str, float]], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(row | {"epoch": int(row["epoch"])} for row in history)


class ProgressBar(RichProgressBar):
    """Counts epochs from 1, as everything else here does."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keeps Lightning's informational messages and expected warnings off the screen."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings():
            for known in (
                ".*does not have many workers.*",
                ".*The number of training batches.*",
                ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
                ".*GPU available but not used.*",
                ".*this fit will run with no optimizer.*",
                ".*`training_step` returned `None`.*",
            ):
                warnings.filterwarnings("ignore", known)
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
