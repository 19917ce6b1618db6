"""Soft alignment of a sequence to a fixed number of time steps, for unaligned data."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Alignment(nn.Module):
    """Two-layer LSTM whose outputs weight the time steps: (B, T, d) → (B, steps, d).

    For every input step the LSTM predicts a distribution over a blank and `steps` output steps. The
    probabilities of the output steps, without the blank, are the weights of the input steps. As in the
    released code there is no CTC loss. Unlike there, padding has weight 0.

    Args:
        width: d.
        steps: number of time steps after alignment.
    """

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.lstm = nn.LSTM(width, steps + 1, num_layers=2, batch_first=True)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Align a batch.

        Args:
            x: (B, T, d).
            mask: (B, T) bool, valid = True.

        Returns:
            Aligned sequences (B, steps, d) and their mask (B, steps), all valid.
        """
        with torch.autocast(x.device.type, enabled=False):  # not every CPU has a bf16 LSTM
            x = x.to(next(self.lstm.parameters()).dtype)
            logits, _ = self.lstm(x)
        weights = logits.softmax(-1)[..., 1:] * mask[..., None]  # (B, T, steps)
        aligned = weights.transpose(1, 2) @ x
        return aligned, torch.ones(aligned.shape[:2], dtype=torch.bool, device=x.device)
