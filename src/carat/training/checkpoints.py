"""Checkpoints: written atomically, verified by SHA-256 when read, the last two kept."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import CheckpointIO
from torch.serialization import get_unsafe_globals_in_checkpoint

from carat.runs.compatibility import rename_weights
from carat.training.signals import SignalHandler
from carat.utils.errors import RunError, StoppedError
from carat.utils.files import replace_file
from carat.utils.parallel.tasks import one_line
from carat.utils.reading import read_bytes

AfterEpoch = Callable[[dict[str, float]], bool]
SUFFIX = ".ckpt"
KEPT = 2
MAX_BYTES = 1 << 40
"""Limit of the size of a checkpoint in bytes."""
DIGEST = hashlib.sha256().digest_size
UNSAVED = "a callback's state cannot be saved"
PLAIN = "state_dict() and on_save_checkpoint() may return tensors and plain values only"


class CheckedFiles(CheckpointIO):
    """Checkpoints as files that end with the SHA-256 of their content."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        buffer = io.BytesIO()
        try:
            torch.save(checkpoint, buffer)
        except (AttributeError, TypeError, pickle.PicklingError) as error:  # what cannot be pickled
            raise RunError(f"{UNSAVED}: {error}; {PLAIN}") from error
        _refuse_objects(buffer)
        content = buffer.getbuffer()
        replace_file(Path(path), content, hashlib.sha256(content).digest())

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> Any:
        content = read_checked(Path(path))
        try:
            checkpoint = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            checkpoint = _with_current_names(checkpoint)
            seen = checkpoint["progress"]["batches_seen"]
        except (
            Exception
        ) as error:  # whatever PyTorch raises on a file that it did not write, or that holds code
            reason = one_line(error)
            raise RunError(f"{path}: not a checkpoint of carat; remove it ({reason})") from error
        if seen != batches_of(Path(path)):
            raise RunError(
                f"{path}: renamed: it was saved after {seen} batches; give it back its name or remove it"
            )
        return checkpoint

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def _refuse_objects(buffer: io.BytesIO) -> None:
    """Refuse objects that could not be loaded again; only callbacks of the caller can add them.

    Raises:
        RunError: names the classes.
    """
    buffer.seek(0)
    classes = get_unsafe_globals_in_checkpoint(buffer)
    if classes:
        raise RunError(f"{UNSAVED}: it holds {', '.join(sorted(classes))}; {PLAIN}")


def _with_current_names(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Rename the weights of a checkpoint that carat 0.1 wrote."""

    def is_old(value: Any) -> bool:
        return isinstance(value, dict) and any(str(key).startswith("method.") for key in value)

    if not is_old(checkpoint["state_dict"]):
        return checkpoint
    renamed = {key: rename_weights(x) if is_old(x) else x for key, x in checkpoint.items()}
    progress = checkpoint["progress"]
    return renamed | {"progress": progress | {"best": rename_weights(progress["best"])}}


def read_checked(file: Path) -> bytes:
    """Content of a checkpoint.

    Raises:
        RunError: checksum mismatch, or not a regular file.
    """
    content = read_bytes(file, RunError, MAX_BYTES)
    if hashlib.sha256(content[:-DIGEST]).digest() != content[-DIGEST:]:
        raise RunError(f"{file}: corrupt checkpoint (SHA-256 mismatch)")
    return content[:-DIGEST]


def find_checkpoint(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest intact checkpoint, None if there is none, and a note on each corrupt one that is newer."""
    notes = []
    for file in _newest_first(folder):
        try:
            read_checked(file)
        except (OSError, RunError) as error:
            notes.append(f"{error}; resuming from an earlier state")
        else:
            return file, notes
    return None, notes


def keep_newest(folder: Path, count: int = 1) -> None:
    """Delete all but the newest checkpoints of a folder."""
    for file in _newest_first(folder)[count:]:
        file.unlink()


def batches_of(checkpoint: Path) -> int:
    """Number of batches that a checkpoint's name tells."""
    return int(checkpoint.stem.split("-")[1])


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"step-{'[0-9]' * 9}{SUFFIX}"), reverse=True) if folder.is_dir() else []


class Checkpoints(Checkpoint):
    """Saves a checkpoint every few batches, after every epoch, and before a requested stop.

    Args:
        folder: folder of the checkpoints.
        every: number of batches between checkpoints.
        signal_handler: checked after every batch.
        after_epoch: see `carat.training.train.train`.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        signal_handler: SignalHandler,
        after_epoch: AfterEpoch | None = None,
    ) -> None:
        self.folder, self.every, self.signal_handler = folder, every, signal_handler
        self.after_epoch = after_epoch

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.is_last_batch:  # the checkpoint of the epoch follows
            return
        if (batch_idx + 1) % trainer.accumulate_grad_batches:  # gradients are not saved
            return
        stop = self.signal_handler.stop_requested()
        if stop or pl_module.batches_seen // self.every > self._saved // self.every:
            self._save(trainer, pl_module.batches_seen)
        if stop:
            self.signal_handler.raise_interrupted()

    def on_train_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._saved: int = pl_module.batches_seen
        self.signal_handler.install()

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self.signal_handler.restore()

    def on_exception(self, trainer: L.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.signal_handler.restore()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        self._save(trainer, pl_module.batches_seen)
        if self.signal_handler.stop_requested():
            self.signal_handler.raise_interrupted()
        if self.after_epoch is not None and self.after_epoch(pl_module.history[-1]):
            raise StoppedError(f"{self.folder.parent}: stopped after epoch {len(pl_module.history)}")

    def _save(self, trainer: L.Trainer, batches: int) -> None:
        self._saved = batches
        trainer.save_checkpoint(self.folder / f"step-{batches:09}{SUFFIX}")
        if trainer.is_global_zero:
            keep_newest(self.folder, KEPT)
