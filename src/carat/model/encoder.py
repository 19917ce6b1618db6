"""Transformer encoder of one modality: (B, T, d) → (B, T, D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


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
        self.attended = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden, eps=norm_eps)
        self.widen = nn.Linear(hidden, feedforward)
        self.narrow = nn.Linear(feedforward, hidden)
        self.output_norm = nn.LayerNorm(hidden, eps=norm_eps)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) with valid = True and one valid step at least in every row."""
        dropout = self.dropout if self.training else 0.0
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, T, D / heads)
            for part in self.query_key_value(x).chunk(3, dim=-1)
        )
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask[:, None, None, :], dropout_p=dropout
        )
        attended = self.attended(attended.transpose(1, 2).flatten(2))
        x = self.attention_norm(x + F.dropout(attended, dropout))
        fed = self.narrow(F.gelu(self.widen(x)))
        out: Tensor = self.output_norm(x + F.dropout(fed, dropout))
        return out


class Encoder(nn.Module):
    """Projection, learned positions and a stack of `EncoderLayer`.

    Weights and positions are drawn from N(0, .02), biases are 0 (the paper's encoder, section "Forward").

    Args:
        width: d, features per time step.
        hidden: D.
        layers: how many layers.
        heads, feedforward, dropout, norm_eps: see `EncoderLayer`.
        max_length: how many positions have an embedding.
        pooler: hold the frozen weights of a pooler whose output nothing uses, as the released code does.
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
    ) -> None:
        super().__init__()
        self.project = nn.Linear(width, hidden)
        self.positions = nn.Parameter(torch.empty(max_length, hidden))
        self.norm = nn.LayerNorm(hidden, eps=norm_eps)
        self.dropout = nn.Dropout(dropout)
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

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, d) with T ≤ max_length, mask (B, T) with valid = True → hidden states (B, T, D)."""
        hidden: Tensor = self.dropout(self.norm(self.project(x) + self.positions[: x.shape[1]]))
        for layer in self.layers:
            hidden = layer(hidden, mask)
        return hidden
