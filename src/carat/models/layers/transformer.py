"""Transformer encoder of one modality: (B, T, d) → (B, T, D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from carat.models.layers.dropout import add_dropped, dropout
from carat.models.layers.linear import linear
from carat.models.layers.packing import LengthGroup, PackedBatch
from carat.utils.device import on_host

LONG = 128
"""Steps above which attention weights are recomputed in the backward pass, and computed in parts."""
HELD = 1 << 21
"""Attention weights per part."""


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """softmax(Q Kᵀ / √d) V, with dropout of the weights.

    Args:
        query, key, value: (B, heads, T, d).
        mask: (B, T) keys, valid = True; None: all.
        p: dropout of the weights, see `dropout`.

    Returns:
        (B, heads, T, d).
    """
    long = key.shape[-2] > LONG
    if not on_host(query) or (long and not p):
        keys = None if mask is None else mask[:, None, None]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=keys, dropout_p=p)
    if not long:
        return _attend(query, key, value, mask, p)
    masks = torch.ones_like(key[:, 0, :, 0], dtype=torch.bool) if mask is None else mask
    few = max(1, HELD // (key.shape[1] * key.shape[2] ** 2))  # samples at a time
    parts = zip(*(torch.split(x, few) for x in (query, key, value, masks)), strict=True)
    return torch.cat([checkpoint(_attend, *part, p, use_reentrant=False) for part in parts])


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float) -> Tensor:
    """Plain matrix products: on a CPU, SDPA is slower for short sequences and has no fast dropout."""
    similar = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        bias = torch.zeros_like(mask, dtype=similar.dtype).masked_fill_(~mask, float("-inf"))
        similar = similar + bias[:, None, None]
    return dropout(similar.softmax(-1), p).to(value.dtype) @ value


def attend_packed(projected: Tensor, groups: list[LengthGroup], heads: int, p: float) -> Tensor:
    """Attention within each sample, group by group.

    Args:
        projected: packed queries, keys and values (N, 3·D).
        groups: where the samples lie.
        heads: of the attention; divides D.
        p: dropout of the weights.

    Returns:
        (N, D).
    """
    if len(groups) == 1:
        return _attend_together(projected, groups[0], heads, p)
    parts = torch.split(projected, [group.rows.stop - group.rows.start for group in groups])
    return torch.cat([_attend_together(*part, heads, p) for part in zip(parts, groups, strict=True)])


def _attend_together(projected: Tensor, group: LengthGroup, heads: int, p: float) -> Tensor:
    split = group.unpack(projected).view(*group.mask.shape, 3, heads, -1)  # (R, T, 3, heads, D / heads)
    query, key, value = split.permute(2, 0, 3, 1, 4)
    attended = attend(query, key, value, None if group.full else group.mask, p)
    return group.pack(attended.transpose(1, 2).flatten(2))


def _through(layer: nn.Linear, rows: Tensor) -> Tensor:
    return linear(rows, layer.weight, layer.bias)


class EncoderLayer(nn.Module):
    """Post-norm Transformer layer with exact GELU, as BERT's.

    Args:
        hidden: D.
        heads: attention heads; divides D.
        feedforward: width between the two feed-forward projections.
        dropout: on attention weights and on both residual branches.
        norm_eps: epsilon of the LayerNorms.
    """

    def __init__(self, hidden: int, heads: int, feedforward: int, dropout: float, norm_eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query_key_value = nn.Linear(hidden, 3 * hidden)
        self.out_proj = nn.Linear(hidden, hidden)
        self.norm1 = nn.LayerNorm(hidden, eps=norm_eps)
        self.linear1 = nn.Linear(hidden, feedforward)
        self.linear2 = nn.Linear(feedforward, hidden)
        self.norm2 = nn.LayerNorm(hidden, eps=norm_eps)

    def forward(self, x: Tensor, groups: list[LengthGroup]) -> Tensor:
        """Packed rows x (N, D) of these groups → (N, D)."""
        p = self.dropout if self.training else 0.0
        attended = attend_packed(_through(self.query_key_value, x), groups, self.heads, p)
        mixed = _through(self.out_proj, attended)
        x = self.norm1(add_dropped(x, mixed, p))
        fed = _through(self.linear2, F.gelu(_through(self.linear1, x)))
        out: Tensor = self.norm2(add_dropped(x, fed, p))
        return out


class Encoder(nn.Module):
    """Projection, learned positions and a stack of `EncoderLayer`.

    Weights and positions are drawn from N(0, .02), biases are 0 (the paper's encoder, section "Forward").

    Args:
        width: d, features per time step.
        hidden: D.
        layers: number of layers.
        heads, feedforward, dropout, norm_eps: see `EncoderLayer`.
        max_length: number of position embeddings.
        pooler: add a frozen pooler whose output nothing uses, as the released code does.
        identity_init: start with positions at 0 and, if d = D, with the identity as projection.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        layers: int,
        heads: int,
        feedforward: int,
        dropout: float,
        max_length: int,
        norm_eps: float,
        pooler: bool = False,
        identity_init: bool = False,
    ) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.positions = nn.Parameter(torch.empty(max_length, hidden))
        self.norm = nn.LayerNorm(hidden, eps=norm_eps)
        self.dropout = dropout
        self.layers = nn.ModuleList(
            EncoderLayer(hidden, heads, feedforward, dropout, norm_eps) for _ in range(layers)
        )
        if pooler:
            self.pooler = nn.Linear(hidden, hidden).requires_grad_(False)
        nn.init.normal_(self.positions, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        if identity_init:
            nn.init.zeros_(self.positions)
            if width == hidden:
                nn.init.eye_(self.project.weight)

    def forward(self, x: Tensor, packed: PackedBatch) -> Tensor:
        """Hidden states (R, T, D) of x (R, T, d) with T ≤ max_length, zeros where padded."""
        whole = packed.whole
        positions = self.positions[: x.shape[1]].expand(x.shape[0], -1, -1)
        rows = self.norm(_through(self.project, whole.pack(x)) + whole.pack(positions))
        rows = dropout(rows, self.dropout if self.training else 0.0)
        for layer in self.layers:
            rows = layer(rows, packed.groups)
        return whole.unpack(rows)
