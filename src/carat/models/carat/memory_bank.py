"""First-in-first-out memory bank of past latents for the contrastive loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMPTY = -1
"""Class of a row that was not filled yet."""
NOISE = -2
"""Class of a row of noise: a negative of every latent."""


class MemoryBank(nn.Module):
    """A ring of the last `size` latents and their classes, as buffers.

    Args:
        size: rows that the ring holds.
        latent: P.
        noise: start with Gaussian noise, normalized over the rows instead of over P, as the released code
            does; else empty.
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
        """Append rows (N, P) of the given classes (N,), dropping the oldest; only the last `size` count.

        Rows of class `EMPTY` are skipped. Every place of the ring gathers its new content, so that no shape
        depends on how many rows are pushed.
        """
        if not len(rows):
            return
        size = len(self.rows)
        filled = classes != EMPTY
        number = filled.sum()
        in_order = (~filled).to(torch.uint8).argsort(stable=True)  # those to append, then the others
        after = (torch.arange(size, device=rows.device) - self.pointer) % size  # places behind the pointer
        newest = (
            after + (number - 1 - after).div(size, rounding_mode="floor") * size
        )  # of those that fit there
        source = in_order[newest.clamp(0, len(rows) - 1)]
        replaced = after < number
        self.rows.copy_(torch.where(replaced[:, None], rows[source].to(self.rows.dtype), self.rows))
        self.classes.copy_(torch.where(replaced, classes[source], self.classes))
        self.pointer.copy_((self.pointer + number) % size)
