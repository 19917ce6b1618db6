"""Soft alignment of a long modality to a fixed number of steps (the paper's unaligned setting)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Alignment(nn.Module):
    """Two-layer LSTM whose outputs weigh the time steps: (B, T, d) → (B, steps, d).

    The LSTM emits `steps` + 1 classes per time step, of which the first, a blank, is dropped; the others,
    transposed, are the weights. As in the released code, no alignment loss is trained. Unlike there,
    padding gets weight 0, so that trailing zeros have no effect.

    Args:
        width: d.
        steps: time steps after alignment.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.lstm = nn.LSTM(width, steps + 1, num_layers=2, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T, d), mask (B, T) → aligned (B, steps, d) and its mask (B, steps), all valid."""
        with torch.autocast(x.device.type, enabled=False):  # not every CPU has a bf16 LSTM
            x = x.to(next(self.lstm.parameters()).dtype)
            emitted, _ = self.lstm(x)
        weights = emitted.softmax(-1)[..., 1:] * mask[..., None]  # (B, T, steps)
        aligned = weights.transpose(1, 2) @ x
        return aligned, torch.ones(aligned.shape[:2], dtype=torch.bool, device=x.device)
