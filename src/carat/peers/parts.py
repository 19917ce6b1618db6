"""What rivals have in common: encoders of sequences, means over time, what a forward pass yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carat.errors import ConfigError
from carat.model.encoder import Encoder
from carat.model.layout import lay_out
from carat.peer_configs import SequenceEncoderConfig

UNLIMITED = 1 << 20
"""Longest sequence of a method that has no positions."""


@dataclass
class PeerOutputs:
    """What one forward pass of most rivals yields."""

    scores: Tensor
    """(B, L), in [0, 1]."""
    carried_by: Tensor
    """(B, L), index of the modality that carried each label; −1 where the method does not say."""
    logits: Tensor
    """(B, L), of the scores."""


def scored(logits: Tensor) -> PeerOutputs:
    """Outputs of a method that does not say which modality carried a label: logits (B, L)."""
    return PeerOutputs(logits.sigmoid(), torch.full(logits.shape, -1, device=logits.device), logits)


def presence_of(masks: Mapping[str, Tensor]) -> Tensor:
    """Which modalities the samples have (B, M), from masks (B, T_m) by modality."""
    return torch.stack([mask.any(1) for mask in masks.values()], dim=1)


def mean_over_time(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (B, T, d) over the valid steps of mask (B, T) → (B, d); 0 where there are none."""
    weights = mask[..., None].to(x.dtype)
    return (x * weights).sum(1) / weights.sum(1).clamp(min=1)


def check_modalities(widths: Mapping[str, int]) -> None:
    """Refuse names that PyTorch keeps for itself.

    Raises:
        ConfigError: names the modality.
    """
    for m in widths:
        if hasattr(nn.ModuleDict, m):
            raise ConfigError(f"modality '{m}': the name is taken by PyTorch, build the store with another")


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
        if hidden % config.heads:
            raise ConfigError(f"method.hidden {hidden} is not a multiple of encoder.heads {config.heads}")
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
        layout = lay_out(mask)
        chosen = layout.select(x)
        if not layout.whole.mask.numel():
            return x.new_zeros(batch, steps, self.hidden)
        encoded = self.encoder(self.norm(chosen), layout)
        padded = nn.functional.pad(encoded, (0, 0, 0, steps - encoded.shape[1]))
        restored = layout.restore(padded, batch)
        return restored * mask[..., None].to(restored.dtype)
