"""Progress of training: a bar on a terminal or in a notebook, otherwise one log line per epoch."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from carat.training.lightning_module import MONITOR
from carat.utils.logging import logger
from carat.utils.progress import Bar, format_duration, is_silent, open_bar


def progress_callbacks() -> list[Callback]:
    """Return the progress callback for this environment; none if progress is hidden."""
    if is_silent():
        return []
    bar = open_bar()
    return [EpochBar(bar)] if bar is not None else [EpochLines()]


class EpochBar(Callback):
    """Progress bar over the batches of each epoch, with loss and validation micro-F1.

    Args:
        bar: progress bar.
    """

    def __init__(self, bar: Bar) -> None:
        self.bar = bar

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._start(trainer)  # a resumed epoch does not call on_train_epoch_start

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._start(trainer)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # reading the loss synchronizes with the device, so read it only when it is displayed
        self.bar.update(batch_idx + 1, _metrics(trainer) if self.bar.is_due() else "")

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: Any,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.bar.update(int(trainer.num_training_batches) + batch_idx + 1)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.bar.update(_batches(trainer), _metrics(trainer))

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.bar.close()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.bar.close()

    def _start(self, trainer: L.Trainer) -> None:
        self.bar.start(f"Epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", _batches(trainer))


class EpochLines(Callback):
    """Log line after every epoch: loss, validation micro-F1, duration, and remaining time."""

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._started = self._epoch_started = time.monotonic()
        self._batches = 0  # of this process, which may have resumed an epoch

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._epoch_started = time.monotonic()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._batches += 1

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        now, done, epochs = time.monotonic(), len(pl_module.history), trainer.max_epochs or 1
        row = pl_module.history[-1]
        best = " (best)" if pl_module.best_epoch == done - 1 else ""
        parts = [
            f"loss {row['train/total']:.4g}",
            f"validation micro-F1 {row[MONITOR]:.4f}{best}",
            format_duration(now - self._epoch_started),
        ]
        if done < epochs and self._batches:
            batches = (epochs - done) * int(trainer.num_training_batches)
            parts.append(f"about {format_duration((now - self._started) / self._batches * batches)} left")
        logger.info("epoch %d/%d: %s", done, epochs, ", ".join(parts))


class SlowTraining(Callback):
    """Log a warning, once, if training becomes three times slower than it was in its first minute.

    Args:
        minute: seconds over which speeds are measured.
        factor: how many times slower.
    """

    def __init__(self, minute: float = 60.0, factor: float = 3.0) -> None:
        self.minute, self.factor = minute, factor
        self.is_reported = False
        self._first = 0.0  # batches per second in the first minute
        self._batches, self._seconds, self._last = 0, 0.0, 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._first = 0.0
        self._restart()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._restart()  # validation is not training

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        self._batches += 1
        self._seconds += now - self._last
        self._last = now
        if self._seconds < self.minute:
            return
        speed = self._batches / self._seconds
        self._first = self._first or speed
        if speed * self.factor < self._first and not self.is_reported:
            self.is_reported = True
            logger.warning(
                f"note: training is {self._first / speed:.1f} times slower than in its first minute; is the "
                "machine busy? Fewer threads may be faster (--threads)"
            )
        self._batches, self._seconds = 0, 0.0

    def _restart(self) -> None:
        self._batches, self._seconds, self._last = 0, 0.0, time.monotonic()


def _batches(trainer: L.Trainer) -> int:
    """Batches of an epoch: of training, then of validation."""
    return int(trainer.num_training_batches) + int(sum(trainer.num_val_batches))


def _metrics(trainer: L.Trainer) -> str:
    shown = {name: value for name, value in trainer.progress_bar_metrics.items() if name != "v_num"}
    return ", ".join(f"{name} {value:.4g}" for name, value in shown.items() if isinstance(value, float))
