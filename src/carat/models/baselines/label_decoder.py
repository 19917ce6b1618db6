"""Transformer layers over embedded sequences, and a decoder with label queries."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.config.baselines import SequenceEncoderConfig
from carat.models.base import check_heads
from carat.models.layers.dropout import add_dropped, dropout
from carat.models.layers.packing import LengthGroup, PackedBatch, pack_batch
from carat.models.layers.transformer import EncoderLayer, attend
from carat.utils.device import on_host

NORM_EPS = 1e-5
"""Epsilon of the LayerNorms."""


class TransformerLayers(nn.Module):
    """Transformer layers: (B, T, D) → (B, T, D), zeros at invalid steps.

    On a CPU only valid steps are computed.

    Args:
        hidden: D.
        layers: number of layers.
        config: number of heads, feed-forward width, dropout.

    Raises:
        ConfigError: D is not divisible by the number of heads.
    """

    def __init__(self, hidden: int, layers: int, config: SequenceEncoderConfig) -> None:
        super().__init__()
        check_heads(hidden, config.heads)
        self.layers = nn.ModuleList(
            EncoderLayer(hidden, config.heads, config.feedforward, config.dropout, NORM_EPS)
            for _ in range(layers)
        )

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Encode x (B, T, D) with mask (B, T), valid = True; the mask may have gaps."""
        packed, whole = pack_with_gaps(mask)
        if not whole.mask.numel():
            return torch.zeros_like(x)
        rows = whole.pack(x if packed.samples is None else x.index_select(0, packed.samples))
        for layer in self.layers:
            rows = layer(rows, packed.groups)
        restored = packed.restore(whole.unpack(rows), x.shape[0])
        return restored * mask[..., None].to(restored.dtype)


def pack_with_gaps(mask: Tensor) -> tuple[PackedBatch, LengthGroup]:
    """Pack a batch whose mask (B, T) may have gaps; also return the group of its valid steps."""
    if not on_host(mask):
        packed = pack_batch(mask)
        return packed, packed.whole
    packed = pack_batch(torch.arange(mask.shape[1]) < mask.sum(1, keepdim=True))
    selected = mask if packed.samples is None else mask[packed.samples]
    return packed, LengthGroup(selected, selected.flatten().nonzero()[:, 0], slice(None), full=False)


class LabelDecoder(nn.Module):
    """Decoder with label embeddings as queries: (B, T, D) → (B, L, D).

    Args:
        labels: L.
        hidden: D.
        layers: number of layers.
        config: number of heads, feed-forward width, dropout.

    Raises:
        ConfigError: D is not divisible by the number of heads.
    """

    def __init__(self, labels: int, hidden: int, layers: int, config: SequenceEncoderConfig) -> None:
        super().__init__()
        check_heads(hidden, config.heads)
        self.embeddings = nn.Parameter(torch.empty(labels, hidden))
        self.norm = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.dropout = config.dropout
        self.layers = nn.ModuleList(LabelDecoderLayer(hidden, config) for _ in range(layers))
        nn.init.normal_(self.embeddings, std=0.02)

    def forward(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """Decode label representations from a sequence (B, T, D) with mask (B, T), valid = True."""
        x = self.norm(self.embeddings).expand(sequence.shape[0], -1, -1)
        x = dropout(x, self.dropout if self.training else 0.0)
        for layer in self.layers:
            x = layer(x, sequence, mask)
        out: Tensor = x
        return out


class LabelDecoderLayer(nn.Module):
    """Post-norm decoder layer: self-attention of labels, cross-attention to a sequence, GELU feed-forward."""

    def __init__(self, hidden: int, config: SequenceEncoderConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.out_proj = nn.Linear(hidden, hidden)
        self.norm1 = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.query = nn.Linear(hidden, hidden)
        self.key_value = nn.Linear(hidden, 2 * hidden)
        self.looked_up = nn.Linear(hidden, hidden)
        self.sequence_norm = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.linear1 = nn.Linear(hidden, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=NORM_EPS)

    def forward(self, labels: Tensor, sequence: Tensor, mask: Tensor) -> Tensor:
        """Labels (B, L, D) attend to a sequence (B, T, D) with mask (B, T) → (B, L, D)."""
        p = self.dropout if self.training else 0.0
        query, key, value = self.query_key_value(labels).chunk(3, dim=-1)
        mixed = self.out_proj(attend_by_heads(query, key, value, self.heads, None, p))
        labels = self.norm1(add_dropped(labels, mixed, p))
        key, value = self.key_value(sequence).chunk(2, dim=-1)
        attended = self.looked_up(attend_by_heads(self.query(labels), key, value, self.heads, mask, p))
        labels = self.sequence_norm(add_dropped(labels, attended, p))
        transformed = self.linear2(F.gelu(self.linear1(labels)))
        out: Tensor = self.norm2(add_dropped(labels, transformed, p))
        return out


class LabelClassifiers(nn.Module):
    """One linear classifier per label: (B, L, D) → logits (B, L)."""

    def __init__(self, labels: int, hidden: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(labels, hidden))
        self.bias = nn.Parameter(torch.zeros(labels))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.weight).sum(-1) + self.bias


def attend_by_heads(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None, p: float
) -> Tensor:
    """Multi-head attention of query (B, L, D) to key and value (B, T, D) → (B, L, D).

    Args:
        query, key, value: projected inputs.
        heads: number of heads; must divide D.
        mask: (B, T) of keys, valid = True; samples without valid keys give zeros. None: all keys are valid.
        p: dropout probability of the attention weights.
    """
    query, key, value = (
        x.view(x.shape[0], x.shape[1], heads, -1).transpose(1, 2) for x in (query, key, value)
    )
    if mask is None:
        return attend(query, key, value, None, p).transpose(1, 2).flatten(2)
    has_keys = mask.any(1, keepdim=True)
    attended = attend(query, key, value, mask | ~has_keys, p).transpose(1, 2).flatten(2)
    return attended * has_keys[..., None].to(attended.dtype)
