"""What rivals have in common: encoders of sequences, means over time, what a forward pass yields."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carat.config.baselines import SequenceEncoderConfig
from carat.models.base import check_heads
from carat.models.layers.packing import pack_batch
from carat.models.layers.transformer import Encoder

UNLIMITED = 1 << 20
"""Longest sequence of a method that has no positions."""


@dataclass
class BaselineOutputs:
    """What one forward pass of most rivals yields."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), index of the modality that carried each label; −1 where the method does not say."""
    logits: Tensor
    """(B, L), of the scores."""


def scored(logits: Tensor) -> BaselineOutputs:
    """Outputs of a method that does not say which modality carried a label: logits (B, L)."""
    return BaselineOutputs(logits.sigmoid(), torch.full(logits.shape, -1, device=logits.device), logits)


def averaged(logits: Tensor, modality_mask: Tensor) -> BaselineOutputs:
    """Outputs of the mean of each modality's own logits (B, M, L) over those present (B, M)."""
    present = modality_mask[..., None]
    mean = (logits * present).sum(1) / present.sum(1)
    attribution = logits.masked_fill(~present, float("-inf")).argmax(1)
    return BaselineOutputs(mean.sigmoid(), attribution, mean)


def mean_over_time(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (B, T, d) over the valid steps of mask (B, T) → (B, d); 0 where there are none."""
    weights = mask[..., None].to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


class SequenceEncoder(nn.Module):
    """LayerNorm and a Transformer encoder: (B, T, d) → (B, T, D), zeros where not valid.

    On a CPU only valid steps are computed.

    Args:
        width: d.
        hidden: D.
        config: layers, heads, feed-forward width, dropout, positions.

    Raises:
        ConfigError: D is no multiple of the heads.
    """

    def __init__(self, width: int, hidden: int, config: SequenceEncoderConfig) -> None:
        super().__init__()
        check_heads(hidden, config.heads)
        self.norm = nn.LayerNorm(width)
        self.encoder = Encoder(
            width,
            hidden,
            config.layers,
            config.heads,
            config.feedforward,
            config.dropout,
            config.max_length,
            norm_eps=1e-5,
        )
        self.hidden = hidden

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Hidden states of x (B, T, d) with mask (B, T), valid = True."""
        batch, steps = mask.shape
        packed = pack_batch(mask)
        chosen = packed.select(x)
        if not packed.whole.mask.numel():
            return x.new_zeros(batch, steps, self.hidden)
        encoded = self.encoder(self.norm(chosen), packed)
        padded = nn.functional.pad(encoded, (0, 0, 0, steps - encoded.shape[1]))
        restored = packed.restore(padded, batch)
        return restored * mask[..., None].to(restored.dtype)
