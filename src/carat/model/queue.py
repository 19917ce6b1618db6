"""First-in-first-out memory of past latents, which the contrast compares the batch with."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

EMPTY = -1
"""Class of a row that holds nothing yet."""
NOISE = -2
"""Class of a row of noise: compared with, but of no latent's class."""


class LatentQueue(nn.Module):
    """A ring of the last `size` latents and their classes, as buffers.

    Args:
        size: rows that the ring holds.
        latent: P.
        noise: start with Gaussian noise of unit length over the rows, not over P, as the released code does;
            else empty.
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

    def contents(self) -> tuple[Tensor, Tensor]:
        """Copies of the filled rows (K, P) and their classes (K,); later pushes do not change them."""
        filled = self.classes != EMPTY
        return self.rows[filled], self.classes[filled]

    @torch.no_grad()
    def push(self, rows: Tensor, classes: Tensor) -> None:
        """Append rows (N, P) of the given classes (N,), dropping the oldest; only the last `size` count."""
        size = len(self.rows)
        place = (self.pointer + torch.arange(len(rows), device=self.rows.device)) % size
        self.rows[place[-size:]] = rows[-size:].to(self.rows.dtype)
        self.classes[place[-size:]] = classes[-size:]
        self.pointer.copy_((self.pointer + len(rows)) % size)
