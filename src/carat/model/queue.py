"""First-in-first-out memory of past latents, which the contrast compares the batch with."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMPTY = -1


class LatentQueue(nn.Module):
    """A ring of the last `size` latents and their classes, as buffers; starts empty.

    Args:
        size: rows that the ring holds.
        latent: P.
    """

    rows: Tensor
    classes: Tensor
    pointer: Tensor

    def __init__(self, size: int, latent: int) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(size, latent))
        self.register_buffer("classes", torch.full((size,), EMPTY))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    def contents(self) -> tuple[Tensor, Tensor]:
        """Copies of the filled rows (K, P) and their classes (K,); later pushes do not change them."""
        filled = self.classes != EMPTY
        return self.rows[filled], self.classes[filled]

    @torch.no_grad()
    def push(self, rows: Tensor, classes: Tensor) -> None:
        """Append rows (N, P) of the given classes (N,), dropping the oldest; only the last `size` count."""
        size = len(self.rows)
        rows, classes = rows[-size:], classes[-size:]
        place = (self.pointer + torch.arange(len(rows), device=self.rows.device)) % size
        self.rows[place] = rows.to(self.rows.dtype)
        self.classes[place] = classes
        self.pointer.copy_((self.pointer + len(rows)) % size)
