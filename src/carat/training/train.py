"""From experiment and store to a finished run folder."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
import torch.distributed as dist

from carat.config.experiment import Experiment, load_experiment
from carat.data.loader import check_lengths, cut_short, make_loader, usable_rows
from carat.data.store import Store, open_store
from carat.data.summary import cautions, left_out
from carat.evaluation.report import draw_curves
from carat.models.base import Model, TrainingData
from carat.models.build import build
from carat.runs import card as run
from carat.training.checkpoints import AfterEpoch, find_checkpoint
from carat.training.compilation import ROUND_TO, compile_model
from carat.training.distributed import SINGLE_PROCESS, Processes, started_by_launcher
from carat.training.launcher import launch
from carat.training.lightning_module import TrainingModule
from carat.training.trainer import fit
from carat.utils.errors import CaratError, ConfigError, RunError, did_you_mean
from carat.utils.locking import lock
from carat.utils.memory import peak_gb

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainedRun:
    """A finished training."""

    folder: Path
    card: run.RunCard


@dataclass
class Task:
    """A training that can be begun: everything that could be refused was looked at."""

    experiment: Experiment
    store: Store
    accelerator: str
    model: Model
    processes: Processes
    pad_to: dict[str, int]
    loaders: dict[str, Any]
    notes: list[str]


def train(
    experiment: Experiment | Mapping[str, Any] | str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    say: Say = lambda line: None,
    after_epoch: AfterEpoch | None = None,
) -> TrainedRun:
    """Train a method and write a run folder.

    Everything that can be checked is checked before anything is written. After each epoch the whole
    validation split is scored and its best threshold searched; the epoch with the best validation micro-F1
    is kept. The test split is not looked at.

    An unfinished run of the same experiment on the same store is gone on with, from the last state that was
    saved; on a CPU it ends with the same weights as if it had never been interrupted.

    Args:
        experiment: an `Experiment`, a nested mapping of what differs from the paper's, or a YAML file.
        store: a store or its folder, with splits `train` and `valid`.
        out: folder of the run to make, or to go on with.
        overwrite: replace an existing run.
        resume: take a finished run of the same experiment as it is, instead of refusing the folder.
        say: called with a line on what is gone on with.
        after_epoch: called with an epoch's row of metrics.csv; answers whether to stop. For one process.

    Raises:
        ConfigError: the experiment is wrong.
        DataError: the store is damaged or does not fit the experiment.
        RunError: the folder is taken, the device is not there, or a process was killed.
        StoppedError: `after_epoch` said so; the state is saved.
        Interrupted: a signal ended it; the state is saved.
    """
    if not isinstance(experiment, Experiment):
        if isinstance(experiment, Mapping):
            experiment = load_experiment(overrides=experiment)
        else:
            experiment = load_experiment(experiment)
    if overwrite and resume:
        raise ConfigError("--overwrite and --resume contradict each other")
    out = Path(out)
    store = store if isinstance(store, Store) else open_store(store)
    state = _look(out, experiment, store, overwrite, resume)
    joined = started_by_launcher()
    if state == "finished" and joined is None:  # nothing else is needed
        return TrainedRun(out, run.read_run(out)[0])
    task = _prepare(experiment, store, joined or SINGLE_PROCESS)
    if joined is not None:
        return _train_joined(task, out, overwrite, resume, say, joined)
    with _claimed(out, task, overwrite, resume) as finished:
        if not finished and experiment.training.devices > 1 and task.model.is_trainable:
            _report_start(out, say)
            backend = "nccl" if task.accelerator == "gpu" else "gloo"
            launch(_train_share, (experiment, store.folder, out), experiment.training.devices, backend)
        elif not finished:
            if experiment.training.devices > 1:
                say("note: this method has nothing to train step by step, so it takes one process")
            _report_start(out, say)
            _train_task(task, out, after_epoch)
    return TrainedRun(out, run.read_run(out)[0])


def _train_share(experiment: Experiment, store: Path, out: Path, processes: Processes) -> None:
    _train_task(_prepare(experiment, open_store(store), processes), out)


def _train_joined(
    task: Task, out: Path, overwrite: bool, resume: bool, say: Say, processes: Processes
) -> TrainedRun:
    """In one of several processes that torchrun or Slurm started: the first one has the folder."""
    devices = task.experiment.training.devices
    if devices not in (1, processes.size):
        raise ConfigError(f"training.devices is {devices}, but {processes.size} processes were started")
    if not task.model.is_trainable:
        raise ConfigError("this method has nothing to train step by step: start one process")
    if task.accelerator == "gpu":
        torch.cuda.set_device(processes.local_rank)
    if not dist.is_initialized():
        dist.init_process_group("nccl" if task.accelerator == "gpu" else "gloo")
    with ExitStack() as stack:
        problem, finished = "", False
        if processes.is_global_zero:
            try:
                finished = stack.enter_context(_claimed(out, task, overwrite, resume))
            except (CaratError, OSError) as error:
                problem = str(error)
        said: list[Any] = [(problem, finished)]
        dist.broadcast_object_list(said)
        problem, finished = said[0]
        if problem:
            raise RunError(problem)
        if not finished:
            if processes.is_global_zero:
                _report_start(out, say)
            _train_task(task, out)
        dist.barrier()
    return TrainedRun(out, run.read_run(out)[0])


def _look(out: Path, experiment: Experiment, store: Store, overwrite: bool, resume: bool) -> str:
    """Whether a folder is "new", or holds the same run "begun" or "finished"; nothing is written yet.

    Raises:
        RunError: it holds something else.
    """
    if not overwrite and (out / run.EXPERIMENT).is_file() and (out / run.ENVIRONMENT).is_file():
        finished = (out / run.CARD).is_file()
        if resume or not finished:
            difference = run.what_differs(out, experiment, store.manifest.fingerprint)
            kind = "a run" if finished else "an unfinished run"
            if difference:
                raise RunError(f"{out}: holds {kind} with {difference} already; --overwrite replaces it")
            return "finished" if finished else "begun"
    run.prepare_folder(out, overwrite)
    return "new"


@contextmanager
def _claimed(out: Path, task: Task, overwrite: bool, resume: bool) -> Iterator[bool]:
    """The folder for this process alone, with what a run begins with; yields whether it is finished."""
    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        state = _look(out, task.experiment, task.store, overwrite, resume)
        if state == "new":
            run.clear_folder(out)
            environment = run.describe_environment() | {"fingerprint": task.store.manifest.fingerprint}
            run.write_json(out / run.ENVIRONMENT, environment)
            for name, file in task.model.extra_files().items():
                run.replace_file(out / name, file.read_bytes())
            run.write_experiment(out, task.experiment)
        yield state == "finished"


def _report_start(out: Path, say: Say) -> None:
    """Say where a training goes on, and what is damaged."""
    checkpoint, notes = find_checkpoint(out / run.CHECKPOINTS)
    for note in notes:
        say(f"warning: {note}")
    if checkpoint is not None:
        say(f"{out}: goes on after {int(checkpoint.stem.split('-')[1])} batches")


def _prepare(experiment: Experiment, store: Store, processes: Processes) -> Task:
    """Look at everything that could be refused."""
    accelerator = find_accelerator(experiment.training.accelerator)
    store.verify()
    modalities = choose_modalities(store, experiment.data.modalities)
    described = {m: store.manifest.modalities[m] for m in modalities}
    L.seed_everything(experiment.seed, workers=True, verbose=False)
    model = build(experiment.method, experiment.encoders, store.label_names, described)
    pad_to = {m: _padded_length(store, m, model.max_length[m], experiment.data.padding) for m in modalities}
    loaders, notes = _loaders(store, experiment, model.max_length, pad_to, accelerator == "gpu", processes)
    return Task(experiment, store, accelerator, model, processes, pad_to, loaders, notes + cautions(store))


def _train_task(task: Task, out: Path, after_epoch: AfterEpoch | None = None) -> None:
    """Train from the beginning or the last checkpoint, and write the run; checkpoints are then removed."""
    experiment, model, processes = task.experiment, task.model, task.processes
    checkpoint, _ = find_checkpoint(out / run.CHECKPOINTS)
    if checkpoint is None:
        model.prepare(_training_data(task.store, experiment, model.max_length, task.pad_to))
    if experiment.training.graph != "eager":
        problem = compile_model(model, experiment.training.graph, task.accelerator)
        task.notes += [problem] if problem else []
    batches = len(task.loaders["train"])
    steps = -(-batches // experiment.training.accumulate) * experiment.training.epochs
    module = TrainingModule(
        model,
        experiment.training,
        task.store.label_names,
        experiment.threshold,
        steps,
        experiment.seed,
        processes,
    )
    if checkpoint is not None:
        seen = int(checkpoint.stem.split("-")[1])
        task.loaders["train"].sampler.go_on(seen // batches, seen % batches)
    fit(module, task.loaders, experiment, task.accelerator, out, checkpoint, after_epoch)
    model.load_state_dict(module.best)
    if processes.is_global_zero:
        _finish(module, task, out)


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
    return min(int(store.lengths(modality).max()), max_length) if padding == "unmasked" else 0


def _loaders(
    store: Store,
    experiment: Experiment,
    max_length: Mapping[str, int],
    pad_to: dict[str, int],
    gpu: bool,
    processes: Processes,
) -> tuple[dict[str, Any], list[str]]:
    data = experiment.data
    modalities = list(pad_to)
    loaders: dict[str, Any] = {}
    notes: list[str] = []
    for split in ("train", "valid"):
        rows = usable_rows(store, split, modalities)
        notes += left_out(store, split, modalities)
        if not data.truncation:
            check_lengths(store, rows, modalities, max_length)
        else:
            notes += cut_short(store, split, modalities, max_length)
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
            share=processes.local_rows if processes.size > 1 else None,
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


def _finish(module: TrainingModule, task: Task, out: Path) -> None:
    best, store = module.best_epoch, task.store
    environment = json.loads((out / run.ENVIRONMENT).read_text(encoding="utf-8"))
    spent = {
        "seconds": round(module.spent(), 1),
        "epochs": len(module.history),
        "peak_gb": round(peak_gb(), 3),
        "parameters": module.model.num_parameters,
        "processes": module.processes.size,
    }
    run.write_json(out / run.ENVIRONMENT, environment | spent)
    _write_history(module.history, out / run.METRICS)
    draw_curves(module.history, best + 1, out / run.CURVES)
    run.write_weights(out, module.model.state_dict())
    described = store.manifest.modalities
    card = run.RunCard(
        labels=store.label_names,
        modalities={
            m: run.ModalityCard(
                **described[m].model_dump(include={"width", "source", "transform", "tokens", "waveform"}),
                pad_to=steps,
            )
            for m, steps in task.pad_to.items()
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
        notes=task.notes,
    )
    run.write_card(out, card)
    shutil.rmtree(out / run.CHECKPOINTS, ignore_errors=True)


def _write_history(history: list[dict[str, float]], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.DictWriter(opened, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(row | {"epoch": int(row["epoch"])} for row in history)
