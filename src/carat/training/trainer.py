"""A method's training under Lightning, from the first step or from a checkpoint."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, EarlyStopping, ProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import Strategy

from carat.config.experiment import Experiment
from carat.data.loader import without_worker
from carat.runs.folder import CHECKPOINTS, LOGS
from carat.training.checkpoints import AfterEpoch, CheckedFiles, Checkpoints
from carat.training.lightning_internals import (
    distributed_strategy,
    one_process,
    quiet_lightning,
    started_processes,
    weight_average,
)
from carat.training.lightning_module import MONITOR, Ends, TrainingModule
from carat.training.progress import SlowTraining, progress_callbacks
from carat.training.signals import SignalHandler
from carat.utils.errors import CaratError, ConfigError

PRECISION = {"float32": "32-true", "bf16": "bf16-mixed"}
LOG_EVERY = 50
"""Steps between logged values; at most one epoch."""


@dataclass(frozen=True)
class Extras:
    """Lightning callbacks and loggers of the caller, see `carat.training.train.train`."""

    callbacks: Sequence[Callback] = ()
    loggers: Sequence[Logger] | None = None

    def check(self, processes: int) -> None:
        """Validate them before anything is written.

        Args:
            processes: number of processes that will be started here; 1 is this one.

        Raises:
            ConfigError: an object of another kind, two progress bars, or one that cannot be sent to another
                process.
        """
        for name, objects, kind in (
            ("callbacks", self.callbacks, Callback),
            ("loggers", self.loggers, Logger),
        ):
            for item in objects or ():
                if not isinstance(item, kind):
                    raise ConfigError(
                        f"{name}: expected objects of lightning.pytorch's {kind.__name__}, found "
                        f"{type(item).__module__}.{type(item).__qualname__}"
                    )
                try:
                    pickle.dumps(item) if processes > 1 else None
                except Exception as error:  # whatever the object's own pickling raises
                    raise ConfigError(
                        f"{name}: {type(item).__qualname__} cannot be sent to the {processes} processes of "
                        f"training.devices ({error}); start them by torchrun instead"
                    ) from error
        if sum(isinstance(callback, ProgressBar) for callback in self.callbacks) > 1:
            raise ConfigError("callbacks: more than one progress bar")


NO_EXTRAS = Extras()


def fit(
    module: TrainingModule,
    loaders: dict[str, Any],
    experiment: Experiment,
    accelerator: str,
    out: Path,
    checkpoint: Path | None,
    after_epoch: AfterEpoch | None = None,
    extras: Extras = NO_EXTRAS,
) -> None:
    """Run the training loop with checkpoints. The module then has history, thresholds and best weights.

    Args:
        module: module to train.
        loaders: data loaders of the splits `train` and `valid`.
        experiment: settings.
        accelerator: "cpu" or "gpu".
        out: folder of the run.
        checkpoint: checkpoint to resume from; None starts from scratch.
        after_epoch: see `carat.training.train.train`.
        extras: callbacks and loggers of the caller.

    Raises:
        Interrupted: by a signal, after a checkpoint was saved.
        DataError: the store has impossible values.
        RunError: the training diverged, or a callback's state cannot be saved.
    """
    config, processes, trainable = experiment.training, module.processes, module.model.is_trainable
    own_bar = any(isinstance(callback, ProgressBar) for callback in extras.callbacks)
    # order: the end of a step, then the weight average, which includes it; Lightning runs checkpoints last
    callbacks: list[Callback] = [Ends()]
    if config.ema_decay and trainable:
        callbacks.append(weight_average(config.ema_decay))
    callbacks += extras.callbacks
    if config.early_stopping:
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=config.early_stopping))
    if processes.is_global_zero:
        callbacks.append(SlowTraining())
    if processes.is_global_zero and not own_bar:
        callbacks += progress_callbacks()
    callbacks.append(Checkpoints(out / CHECKPOINTS, config.checkpoint_every, SignalHandler(), after_epoch))
    strategy: Strategy | str = distributed_strategy() if processes.size > 1 else "auto"
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=processes.local_size,
            num_nodes=processes.size // processes.local_size,
            strategy=strategy,
            precision=PRECISION[config.precision],  # type: ignore[arg-type]
            max_epochs=config.epochs if trainable else 1,
            accumulate_grad_batches=config.accumulate if trainable else 1,
            callbacks=callbacks,
            plugins=[CheckedFiles(), started_processes() if processes.size > 1 else one_process()],
            logger=_loggers(extras.loggers, experiment, out, processes.is_global_zero),
            log_every_n_steps=min(LOG_EVERY, len(loaders["train"])),
            default_root_dir=out / LOGS,
            num_sanity_val_steps=0,
            enable_progress_bar=own_bar,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        try:
            trainer.fit(module, loaders["train"], loaders["valid"], ckpt_path=checkpoint)
        except CaratError as error:
            raise without_worker(error) from error


def _loggers(given: Sequence[Logger] | None, experiment: Experiment, out: Path, first: bool) -> list[Logger]:
    """The caller's loggers, with the experiment as hyperparameters, or TensorBoard; rank zero writes."""
    if given is None:
        return [TensorBoardLogger(out / LOGS, name="", version="")]
    for logger in given if first else ():
        logger.log_hyperparams(experiment.model_dump(mode="json"))
    return list(given)
