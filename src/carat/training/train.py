"""Train a method and write the run folder."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger

from carat.config.experiment import Experiment, ExperimentLike, as_experiment
from carat.data.store import Store, open_store
from carat.evaluation.plots import draw_curves
from carat.runs.card import ModalityCard, RunCard, read_run, write_card
from carat.runs.environment import describe_environment
from carat.runs.folder import (
    CARD,
    CHECKPOINTS,
    CURVES,
    ENVIRONMENT,
    METRICS,
    RUN,
    is_extension,
    what_differs,
    write_experiment,
)
from carat.runs.model_card import describe_model, write_model_card
from carat.runs.reference import write_reference
from carat.runs.weights import write_weights
from carat.training.calibration import validate_task
from carat.training.checkpoints import AfterEpoch, batches_of, find_checkpoint, keep_newest
from carat.training.compilation import compile_model
from carat.training.distributed import SINGLE_PROCESS, Processes, join_processes, started_by_launcher
from carat.training.initialization import ORIGIN, continued_run, read_origin
from carat.training.launcher import launch
from carat.training.lightning_module import TrainingModule
from carat.training.setup import Task, prepare_task, training_data
from carat.training.trained_run import TrainedRun
from carat.training.trainer import NO_EXTRAS, Extras, fit
from carat.utils.errors import CaratError, ConfigError, RunError
from carat.utils.files import replace_file, write_json
from carat.utils.logging import logger
from carat.utils.memory import peak_gb
from carat.utils.output_folder import check_folder, claim, read_plan
from carat.utils.tables import Table

CARRIED = {"width", "source", "transform", "tokens", "waveform", "extraction", "alignment"}
"""Fields of a modality that the card of a run takes from the store."""


def train(
    experiment: ExperimentLike,
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    resume: bool = False,
    strict: bool = False,
    after_epoch: AfterEpoch | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[Logger] | None = None,
) -> TrainedRun:
    """Train a method and write a run folder.

    All inputs are validated before anything is written. After each epoch the validation split is scored and
    its best threshold searched; the epoch with the best validation micro-F1 is kept. The test split is not
    used.

    An unfinished run of the same experiment on the same store is resumed from its last checkpoint; on a CPU
    it ends with the same weights as if it had never been interrupted. With `resume`, a finished run is
    extended to a larger `training.epochs`: training continues from the last epoch with the learning rates of
    the longer schedule, which differ from those that were used so far.

    Args:
        experiment: an `Experiment`, a nested mapping of what differs from the paper's, or a YAML file.
        store: a store or its folder, with splits `train` and `valid`.
        out: folder of the run to create or resume.
        overwrite: replace an existing run.
        resume: return a finished run of the same experiment, or extend one with fewer epochs, instead of
            refusing the folder.
        strict: refuse a store in which no training sample has a modality, or a split has no positive sample
            of a label. Otherwise such a modality is left out, and the card of the run says so.
        after_epoch: called with an epoch's row of metrics.csv; returns whether to stop. For one process.
        callbacks: Lightning callbacks. In several processes each has its own copies, sent there by pickling
            with `training.devices`, made there by the calling script with torchrun or Slurm. Their
            `state_dict()` is part of every checkpoint and restored on resume, so it may hold tensors and
            plain values only; what they draw at random does not change the run. A progress bar among them
            replaces carat's.
        loggers: Lightning loggers, instead of TensorBoard's in `logs/` of the run; none if empty. They get
            the experiment as hyperparameters. In several processes as for callbacks; the first one writes.

    Returns:
        The run: its folder, card and experiment.

    Raises:
        ConfigError: the experiment is invalid, or a callback or logger is none of Lightning's.
        DataError: the store is damaged or does not fit the experiment.
        RunError: the folder is taken, there is no such device, or a process was killed.
        StoppedError: `after_epoch` stopped the training; the state is saved.
        Interrupted: a signal ended it; the state is saved.

    Source: Peng et al., AAAI 2024, section 3, for the default method and its settings.

    Example:
        run = carat.train({"preset": "small"}, store="demo-store", out="my-run")
        run.card.validation["micro_f1"]
    """
    experiment = as_experiment(experiment)
    if overwrite and resume:
        raise ConfigError("--overwrite and --resume contradict each other")
    out, store = Path(out), open_store(store)
    fingerprint = store.manifest.fingerprint
    extension = resume and is_extension(out, experiment, fingerprint)
    state = check_folder(RUN, out, **_terms(out, experiment, fingerprint, overwrite, resume))
    joined, extras = started_by_launcher(), Extras(callbacks, loggers)
    extras.check(experiment.training.devices if joined is None else 1)
    if state == "finished" and not extension and joined is None:
        return TrainedRun(out, *read_run(out))
    continued = continued_run(experiment, out, state)
    task = prepare_task(experiment, store, joined or SINGLE_PROCESS, strict=strict, continued=continued)
    if joined is not None:
        return _train_joined(task, out, overwrite, resume, joined, extras)
    with _claimed(out, task, overwrite, resume) as finished:
        if not finished and experiment.training.devices > 1 and task.model.is_trainable:
            _log_start(out, task)
            backend = "nccl" if task.accelerator == "gpu" else "gloo"
            share = partial(_train_share, extras=extras)
            launch(share, (experiment, store.folder, out), experiment.training.devices, backend)
        elif not finished:
            if experiment.training.devices > 1:
                logger.warning("note: this method has no trainable parameters, so one process is used")
            _log_start(out, task)
            _train_task(task, out, after_epoch, extras)
    return TrainedRun(out, *read_run(out))


def _train_share(
    experiment: Experiment, store: Path, out: Path, processes: Processes, extras: Extras = NO_EXTRAS
) -> None:
    continued = continued_run(experiment, out, "begun")
    task = prepare_task(experiment, open_store(store), processes, continued=continued)
    if continued is None and task.origin != read_origin(out):
        raise RunError(f"{experiment.training.init_from}: changed while the training started; run it again")
    _train_task(task, out, extras=extras)


def _train_joined(
    task: Task, out: Path, overwrite: bool, resume: bool, processes: Processes, extras: Extras
) -> TrainedRun:
    """Train in one of several processes that torchrun or Slurm started; the first one claims the folder."""
    devices = task.experiment.training.devices
    if devices not in (1, processes.size):
        raise ConfigError(f"training.devices is {devices}, but {processes.size} processes were started")
    if not task.model.is_trainable:
        raise ConfigError("this method has no trainable parameters: start one process")
    if task.accelerator == "gpu":
        torch.cuda.set_device(processes.local_rank)
    if not dist.is_initialized():
        join_processes(processes, "nccl" if task.accelerator == "gpu" else "gloo")
    with ExitStack() as stack:
        problem, finished = "", False
        if processes.is_global_zero:
            try:
                finished = stack.enter_context(_claimed(out, task, overwrite, resume))
            except (CaratError, OSError) as error:
                problem = str(error)
        outcome = [(problem, finished)]
        dist.broadcast_object_list(outcome)
        problem, finished = outcome[0]
        if problem:
            raise RunError(problem)
        if not finished:
            if processes.is_global_zero:
                _log_start(out, task)
            _train_task(task, out, extras=extras)
        dist.barrier()
    return TrainedRun(out, *read_run(out))


def _terms(out: Path, experiment: Experiment, fingerprint: str, overwrite: bool, resume: bool) -> Any:
    """Arguments of `check_folder` and `claim` for a training."""

    def difference() -> str:
        extension = resume and is_extension(out, experiment, fingerprint)
        return "" if extension else what_differs(out, experiment, fingerprint)

    return {"overwrite": overwrite, "difference": difference, "accept_finished": resume}


@contextmanager
def _claimed(out: Path, task: Task, overwrite: bool, resume: bool) -> Iterator[bool]:
    """Hold the run folder and write what a run begins with; yields whether the run is finished already."""
    fingerprint = task.store.manifest.fingerprint
    with claim(RUN, out, **_terms(out, task.experiment, fingerprint, overwrite, resume)) as state:
        if resume and is_extension(out, task.experiment, fingerprint):
            _reopen(out, task)
            state = "begun"
        origin = {ORIGIN: task.origin.model_dump()} if task.origin else {}
        if state == "new":
            write_json(out / ENVIRONMENT, describe_environment() | {"fingerprint": fingerprint} | origin)
            write_experiment(out, task.experiment)
        elif state == "begun" and origin:
            write_json(out / ENVIRONMENT, read_plan(out / ENVIRONMENT) | origin)
        for name, file in task.model.extra_files().items():
            if state != "finished" and (origin or not (out / name).exists()):
                replace_file(out / name, file.read_bytes())
        yield state == "finished"


def _reopen(out: Path, task: Task) -> None:
    """Turn a finished run into an unfinished one of more epochs.

    Raises:
        RunError: there is nothing to continue from; nothing was changed.
    """
    if not task.model.is_trainable:
        raise RunError(f"{out}: this method is not trained in epochs, so the run cannot be extended")
    if find_checkpoint(out / CHECKPOINTS)[0] is None:
        raise RunError(
            f"{out}: has no checkpoint to continue from: trained without training.keep_checkpoint, in a "
            "study or by an earlier version; --overwrite trains it anew"
        )
    (out / CARD).unlink()
    write_experiment(out, task.experiment)


def _log_start(out: Path, task: Task) -> None:
    """Report which run a training starts from or which checkpoint it resumes from, and damaged ones."""
    checkpoint, notes = find_checkpoint(out / CHECKPOINTS)
    for note in notes:
        logger.warning(f"warning: {note}")
    if checkpoint is not None:
        logger.info(f"{out}: resuming after {batches_of(checkpoint)} batches")
    elif task.origin is not None:
        for line in task.origin.summary(task.store.label_names):
            logger.info(line)


def _train_task(
    task: Task, out: Path, after_epoch: AfterEpoch | None = None, extras: Extras = NO_EXTRAS
) -> None:
    """Train from the start or the last checkpoint, and write the run."""
    experiment, model, processes = task.experiment, task.model, task.processes
    checkpoint, _ = find_checkpoint(out / CHECKPOINTS)
    if checkpoint is None:
        if experiment.training.init_from is not None and task.origin is None:
            raise RunError(f"{out}: its checkpoint was removed meanwhile; run the same command again")
        model.prepare(training_data(task))
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
        task.store.has_unknown,
        task.teacher,
    )
    if checkpoint is not None:
        seen = batches_of(checkpoint)
        task.loaders["train"].sampler.resume(seen // batches, seen % batches)
    fit(module, task.loaders, experiment, task.accelerator, out, checkpoint, after_epoch, extras)
    model.load_state_dict(module.best)
    if processes.is_global_zero:
        _finish(module, task, out)


def _finish(module: TrainingModule, task: Task, out: Path) -> None:
    """Write metrics, curves, weights and finally the card."""
    best, store = module.best_epoch, task.store
    environment = read_plan(out / ENVIRONMENT)
    spent = {
        "seconds": round(module.spent(), 1),
        "epochs": len(module.history),
        "peak_gb": round(peak_gb(), 3),
        "parameters": module.model.num_parameters,
        "processes": module.processes.size,
        "threads": torch.get_num_threads(),
    }
    write_json(out / ENVIRONMENT, environment | spent)
    Table.from_records([x | {"epoch": int(x["epoch"])} for x in module.history]).to_csv(out / METRICS)
    draw_curves(module.history, best + 1, out / CURVES)
    write_weights(out, module.model.state_dict())
    described = store.manifest.modalities
    thresholds = dict(zip(store.label_names, module.thresholds[best], strict=True))
    validated = validate_task(task, thresholds)
    card = RunCard(
        labels=store.label_names,
        modalities={
            m: ModalityCard(
                **described[m].model_dump(include=CARRIED),
                pad_to=steps,
            )
            for m, steps in task.pad_to.items()
        },
        store=store.manifest.name,
        fingerprint=store.manifest.fingerprint,
        epoch=best + 1,
        thresholds=thresholds,
        validation={
            k.removeprefix("valid/"): v if math.isfinite(v) else None
            for k, v in module.history[best].items()
            if k.startswith("valid/")
        },
        notes=task.notes,
        origin=read_origin(out),
        calibration=validated.calibration,
    )
    name, environment = out.resolve().name, environment | spent
    model = describe_model(name, card, task.experiment, environment, validated.evaluation)
    write_model_card(out, model)
    write_reference(out, validated.references)
    write_card(out, card)
    if task.experiment.training.keep_checkpoint:
        keep_newest(out / CHECKPOINTS)
    else:
        shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
