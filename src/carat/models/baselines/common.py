"""Sequence encoder shared by the baselines."""

from __future__ import annotations

from torch import Tensor, nn

from carat.config.baselines import SequenceEncoderConfig
from carat.models.base import check_heads
from carat.models.layers.packing import pack_batch
from carat.models.layers.transformer import Encoder


class SequenceEncoder(nn.Module):
    """LayerNorm and a Transformer encoder: (B, T, d) → (B, T, D), zeros at invalid steps.

    On a CPU only valid steps are computed.

    Args:
        width: d.
        hidden: D.
        config: number of layers and heads, feed-forward width, dropout, position embeddings.

    Raises:
        ConfigError: D is not divisible by the number of heads.
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
        """Encode x (B, T, d) with mask (B, T), valid = True."""
        batch, steps = mask.shape
        packed = pack_batch(mask)
        selected = packed.select(x)
        if not packed.whole.mask.numel():
            return x.new_zeros(batch, steps, self.hidden)
        encoded = self.encoder(self.norm(selected), packed)
        padded = nn.functional.pad(encoded, (0, 0, 0, steps - encoded.shape[1]))
        restored = packed.restore(padded, batch)
        return restored * mask[..., None].to(restored.dtype)
