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

LONG_SEQUENCE = 128
"""Time steps above which attention runs in chunks whose weights are recomputed in the backward pass."""
MAX_WEIGHTS = 1 << 21
"""Attention weights per chunk."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float, bias: Tensor | None = None
) -> Tensor:
    """Scaled dot-product attention: softmax(Q Kᵀ / √d + bias) V, with dropout on the weights.

    Args:
        query, key, value: (B, heads, T, d).
        mask: (B, T) bool, valid keys = True; None: all keys are valid.
        p: dropout probability of the weights, see `dropout`.
        bias: (heads, T, T), added to the scores.

    Returns:
        (B, heads, T, d).
    """
    long = key.shape[-2] > LONG_SEQUENCE
    if not on_host(query) or (long and not p):
        attn_mask = None if mask is None else mask[:, None, None]
        if bias is not None:
            attn_mask = bias[None] if attn_mask is None else bias.masked_fill(~attn_mask, float("-inf"))
        return F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, dropout_p=p)
    if not long:
        return _attend(query, key, value, mask, p, bias)
    masks = torch.ones_like(key[:, 0, :, 0], dtype=torch.bool) if mask is None else mask
    chunk_size = max(1, MAX_WEIGHTS // (key.shape[1] * key.shape[2] ** 2))  # samples
    chunks = zip(*(torch.split(x, chunk_size) for x in (query, key, value, masks)), strict=True)
    return torch.cat([checkpoint(_attend, *chunk, p, bias, use_reentrant=False) for chunk in chunks])


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, p: float, bias: Tensor | None
) -> Tensor:
    """As defined: on a CPU, PyTorch's SDPA is slower for short sequences and lacks the fast dropout."""
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    if mask is not None:
        excluded = torch.zeros_like(mask, dtype=scores.dtype).masked_fill_(~mask, float("-inf"))
        scores = scores + excluded[:, None, None]
    return dropout(scores.softmax(-1), p).to(value.dtype) @ value


def attend_packed(
    projected: Tensor, groups: list[LengthGroup], heads: int, p: float, bias: Tensor | None = None
) -> Tensor:
    """Self-attention within each sample, one group at a time.

    Args:
        projected: packed queries, keys and values (N, 3·D).
        groups: groups of samples, in the order of the packed rows.
        heads: number of attention heads; divides D.
        p: dropout probability of the attention weights.
        bias: (heads, T, T), added to the scores; T is the length of the longest sample.

    Returns:
        (N, D).
    """
    if len(groups) == 1:
        return _attend_group(projected, groups[0], heads, p, bias)
    parts = torch.split(projected, [group.rows.stop - group.rows.start for group in groups])
    return torch.cat([_attend_group(*part, heads, p, bias) for part in zip(parts, groups, strict=True)])


def _attend_group(projected: Tensor, group: LengthGroup, heads: int, p: float, bias: Tensor | None) -> Tensor:
    split = group.unpack(projected).view(*group.mask.shape, 3, heads, -1)  # (R, T, 3, heads, D / heads)
    query, key, value = split.permute(2, 0, 3, 1, 4)
    if bias is not None:
        bias = bias[:, : group.mask.shape[1], : group.mask.shape[1]]
    attended = attend(query, key, value, None if group.full else group.mask, p, bias)
    return group.pack(attended.transpose(1, 2).flatten(2))


def _apply(layer: nn.Linear, rows: Tensor) -> Tensor:
    return linear(rows, layer.weight, layer.bias)


class EncoderLayer(nn.Module):
    """Post-norm Transformer layer with exact GELU, as in BERT.

    Args:
        hidden: D.
        heads: number of attention heads; divides D.
        feedforward: width between the two feed-forward projections.
        dropout: dropout probability of the attention weights and of both residual branches.
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
        """Packed rows (N, D) of all groups → (N, D)."""
        p = self.dropout if self.training else 0.0
        attended = attend_packed(_apply(self.query_key_value, x), groups, self.heads, p)
        x = self.norm1(add_dropped(x, _apply(self.out_proj, attended), p))
        feedforward = _apply(self.linear2, F.gelu(_apply(self.linear1, x)))
        out: Tensor = self.norm2(add_dropped(x, feedforward, p))
        return out


class Encoder(nn.Module):
    """Input projection, learned position embeddings and a stack of `EncoderLayer`.

    Weights and position embeddings are initialized from N(0, 0.02²), biases with 0.

    Args:
        width: d, features per time step.
        hidden: D.
        layers: number of layers.
        heads, feedforward, dropout, norm_eps: see `EncoderLayer`.
        max_length: number of position embeddings.
        pooler: add a frozen pooler whose output is unused, as in the released code.
        identity_init: initialize the position embeddings with 0 and, if d = D, the projection with the
            identity.

    Source: Peng et al. 2024 (CARAT), the encoder of each modality.
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
        """Encode the selected samples of a batch.

        Args:
            x: (R, T, d), T ≤ max_length.
            packed: packed batch.

        Returns:
            Hidden states (R, T, D), zeros at padding.
        """
        whole = packed.whole
        positions = self.positions[: x.shape[1]].expand(x.shape[0], -1, -1)
        rows = self.norm(_apply(self.project, whole.pack(x)) + whole.pack(positions))
        rows = dropout(rows, self.dropout if self.training else 0.0)
        for layer in self.layers:
            rows = layer(rows, packed.groups)
        return whole.unpack(rows)
