"""First-in-first-out memory bank of past latents for the contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMPTY = -1
"""Class of an empty row."""
NOISE = -2
"""Class of a row of initial noise, which is in the denominator of the loss but is no anchor's positive."""


class MemoryBank(nn.Module):
    """Ring buffer of the last `size` latents and their classes.

    Args:
        size: number of rows K.
        latent: P.
        noise: start with Gaussian noise, normalized over the rows instead of over P as in the released code;
            if False, start empty.
    """

    rows: Tensor
    classes: Tensor
    pointer: Tensor

    def __init__(self, size: int, latent: int, noise: bool = False) -> None:
        super().__init__()
        rows = F.normalize(torch.randn(size, latent), dim=0) if noise else torch.zeros(size, latent)
        self.register_buffer("rows", rows)
        self.register_buffer("classes", torch.full((size,), NOISE if noise else EMPTY))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, rows: Tensor, classes: Tensor) -> None:
        """Append rows, overwriting the oldest.

        Every slot of the ring computes which row it receives, so that no shape depends on the number of rows
        that are skipped.

        Args:
            rows: (N, P); if more than `size` are to be appended, only the last ones are kept.
            classes: (N,); rows of class `EMPTY` are skipped.
        """
        if not len(rows):
            return
        size = len(self.rows)
        valid = classes != EMPTY
        number = valid.sum()
        order = (~valid).to(torch.uint8).argsort(stable=True)  # rows to append, then rows to skip
        offset = (torch.arange(size, device=rows.device) - self.pointer) % size  # of each slot
        laps = (number - 1 - offset).div(size, rounding_mode="floor")  # how often a slot is overwritten again
        source = order[(offset + laps * size).clamp(0, len(rows) - 1)]
        replaced = offset < number
        self.rows.copy_(torch.where(replaced[:, None], rows[source].to(self.rows.dtype), self.rows))
        self.classes.copy_(torch.where(replaced, classes[source], self.classes))
        self.pointer.copy_((self.pointer + number) % size)
