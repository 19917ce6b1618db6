"""Handling of SIGINT and SIGTERM: the training saves its state before it stops."""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
import torch.distributed as dist

from carat.utils.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class SignalHandler:
    """Records the first signal, so that the training can stop at a step; a second one stops it at once."""

    def __init__(self) -> None:
        self.number = 0
        """Number of the recorded signal; 0 is none."""
        self._previous: dict[int, Any] = {}

    def install(self) -> None:
        """Replace the current signal handlers; does nothing outside the main thread."""
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._record) for number in SIGNALS}

    def restore(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def stop_requested(self) -> bool:
        """Whether this or any other process of the training received a signal; all must call it."""
        if dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            number = torch.tensor(self.number, device=device)
            dist.all_reduce(number, dist.ReduceOp.MAX)
            self.number = int(number)
        return self.number > 0

    def raise_interrupted(self) -> None:
        """Stop the training.

        Raises:
            Interrupted: always, with the number of the recorded signal.
        """
        raise Interrupted(self.number)

    def _record(self, number: int, frame: Any) -> None:
        if self.number:
            raise Interrupted(number)
        self.number = number
