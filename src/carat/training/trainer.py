"""A method's training under Lightning, from the first step or from a checkpoint."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import Callback, EarlyStopping, EMAWeightAveraging, RichProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy

from carat.config.experiment import Experiment
from carat.runs import card as run
from carat.training.checkpoints import AfterEpoch, CheckedFiles, Checkpoints
from carat.training.lightning_module import MONITOR, Ends, TrainingModule
from carat.training.signals import SignalHandler

PRECISION = {"float32": "32-true", "bf16": "bf16-mixed"}


def fit(
    module: TrainingModule,
    loaders: dict[str, Any],
    experiment: Experiment,
    accelerator: str,
    out: Path,
    checkpoint: Path | None,
    after_epoch: AfterEpoch | None = None,
) -> None:
    """Train to the end, keeping checkpoints; `module` then holds history, thresholds and the best weights.

    Args:
        module: what is trained.
        loaders: of the splits train and valid.
        experiment: how.
        accelerator: "cpu" or "gpu".
        out: folder of the run.
        checkpoint: where to go on from; None is the beginning.
        after_epoch: see `carat.training.train.train`.

    Raises:
        Interrupted: by a signal, with the state saved.
        RunError: the training diverged.
    """
    config, processes = experiment.training, module.processes
    signal_handler = SignalHandler()
    callbacks: list[Callback] = [
        Ends(),
        Checkpoints(out / run.CHECKPOINTS, config.checkpoint_every, signal_handler, after_epoch),
    ]
    if config.ema_decay and module.model.is_trainable:
        callbacks.insert(1, EMAWeightAveraging(decay=config.ema_decay, use_buffers=False))
    if config.early_stopping:
        callbacks.append(EarlyStopping(MONITOR, mode="max", patience=config.early_stopping))
    visible = processes.is_global_zero and sys.stderr.isatty()
    if visible:
        callbacks.append(ProgressBar())
    strategy: Strategy | str = "auto"
    if processes.size > 1:
        strategy = DDPStrategy(find_unused_parameters=True, broadcast_buffers=False)
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator=accelerator,
            devices=processes.local_size,
            num_nodes=processes.size // processes.local_size,
            strategy=strategy,
            precision=PRECISION[config.precision],  # type: ignore[arg-type]
            max_epochs=config.epochs if module.model.is_trainable else 1,
            accumulate_grad_batches=config.accumulate,
            callbacks=callbacks,
            plugins=[CheckedFiles(), *([TorchElasticEnvironment()] if processes.size > 1 else [])],
            logger=processes.is_global_zero and TensorBoardLogger(out / run.LOGS, name="", version=""),
            num_sanity_val_steps=0,
            enable_progress_bar=visible,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
        trainer.fit(module, loaders["train"], loaders["valid"], ckpt_path=checkpoint)


class ProgressBar(RichProgressBar):
    """Counts epochs from 1, as everything else here does."""

    def _get_train_description(self, current_epoch: int) -> str:
        return f"Epoch {current_epoch + 1}/{self.trainer.max_epochs}"


@contextmanager
def quiet_lightning() -> Iterator[None]:
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
                ".*recommended to use `self.log.*sync_dist.*",
                ".*`broadcast_buffers` is deprecated.*",
                ".*in eval mode at the start of training.*",
            ):
                warnings.filterwarnings("ignore", known)
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
