"""Ctrl-C and SIGTERM: the training ends where it can be gone on with."""

from __future__ import annotations

import signal
import threading
from typing import Any

import torch
import torch.distributed as dist

from carat.utils.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Notes the first signal, so that the training can save its state; a second one ends it at once."""

    def __init__(self) -> None:
        self.number = 0
        self._before: dict[int, Any] = {}

    def watch(self) -> None:
        """Take over the signals, where the main thread runs; otherwise they do what they did."""
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}

    def forget(self) -> None:
        """Give the signals back."""
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before = {}

    def agreed(self) -> bool:
        """Whether to stop; with several processes, whether any of them is to."""
        if dist.is_initialized():
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            everyone = torch.tensor(self.number, device=device)
            dist.all_reduce(everyone, dist.ReduceOp.MAX)
            self.number = int(everyone)
        return self.number > 0

    def leave(self) -> None:
        """Raises:
        Interrupted: by the signal that was noted.
        """
        raise Interrupted(self.number)

    def _note(self, number: int, frame: Any) -> None:
        if self.number:
            raise Interrupted(number)
        self.number = number
