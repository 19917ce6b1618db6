"""MPNet encoders that skip padding on a CPU. Parameters are named as in published checkpoints."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from carat.models.encoders.bert import PostNormLayer, run_layer
from carat.models.layers.dropout import dropout
from carat.models.layers.packing import LengthGroup, PackedBatch

MAX_DISTANCE = 128
"""Distance from which all positions share a bias."""


def is_mpnet(config: dict[str, Any]) -> bool:
    """Whether `Mpnet` implements the architecture of a configuration."""
    return bool(config["model_type"] == "mpnet" and config.get("hidden_act", "gelu") == "gelu")


class Mpnet(nn.Module):
    """MPNet encoder without pooler: like RoBERTa, with biases of attention by relative position.

    Args:
        config: contents of `config.json`; missing keys take the published defaults.

    Source: Song et al. 2020; relative positions as in Raffel et al. 2020.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        padding_idx = int(config.get("pad_token_id", 1))
        self.position_offset = padding_idx + 1
        self.dropout = float(config.get("hidden_dropout_prob", 0.1))
        positions, heads = config.get("max_position_embeddings", 512), config["num_attention_heads"]
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config["vocab_size"], hidden, padding_idx=padding_idx),
                "position_embeddings": nn.Embedding(positions, hidden, padding_idx=padding_idx),
                "LayerNorm": nn.LayerNorm(hidden, eps=eps),
            }
        )
        buckets = config.get("relative_attention_num_buckets", 32)
        self.encoder = nn.ModuleDict(
            {
                "relative_attention_bias": nn.Embedding(buckets, heads),  # first: it is below all layers
                "layer": nn.ModuleList(MpnetLayer(config, eps) for _ in range(config["num_hidden_layers"])),
            }
        )

        self.checkpoints = False
        """Whether activations within layers are recomputed in the backward pass."""

    def forward(self, input_ids: Tensor, packed: PackedBatch, token_type_ids: Tensor | None = None) -> Tensor:
        """Encode token ids.

        Args:
            input_ids: (R, T), the samples that `packed` selects.
            packed: packed batch.
            token_type_ids: ignored, as MPNet has none.

        Returns:
            Hidden states (R, T, D), zeros at padding.
        """
        whole, p = packed.whole, self.dropout if self.training else 0.0
        steps = torch.arange(input_ids.shape[1], device=input_ids.device)
        position_ids = (steps + self.position_offset).expand_as(input_ids)
        embeddings, encoder = self.embeddings, self.encoder
        rows = embeddings["word_embeddings"](whole.pack(input_ids[..., None])[:, 0])
        rows = rows + embeddings["position_embeddings"](whole.pack(position_ids[..., None])[:, 0])
        rows = dropout(embeddings["LayerNorm"](rows), p)
        table: Any = encoder["relative_attention_bias"]
        bias = table(relative_buckets(steps, table.num_embeddings)).permute(2, 0, 1)  # (heads, T, T)
        layers: Any = encoder["layer"]
        for layer in layers:
            rows = run_layer(layer, rows, packed.groups, bias, checkpoints=self.checkpoints)
        return whole.unpack(rows)


class MpnetLayer(PostNormLayer):
    """One layer of MPNet.

    Args:
        config: see `Mpnet`.
        eps: epsilon of the LayerNorms.
    """

    def __init__(self, config: dict[str, Any], eps: float) -> None:
        hidden = config["hidden_size"]
        attention = nn.ModuleDict(
            {
                "attn": nn.ModuleDict({name: nn.Linear(hidden, hidden) for name in "qkvo"}),
                "LayerNorm": nn.LayerNorm(hidden, eps=eps),
            }
        )
        super().__init__(config, eps, attention)

    def forward(self, x: Tensor, groups: list[LengthGroup], bias: Tensor) -> Tensor:
        """Packed rows (N, D) of all groups, and the bias of attention (heads, T, T) → (N, D)."""
        *projections, dense = cast(nn.ModuleDict, self.attention["attn"]).values()
        return self.transform(x, projections, dense, self.attention["LayerNorm"], groups, bias)


def relative_buckets(steps: Tensor, buckets: int) -> Tensor:
    """Buckets of relative positions: exact ones for near positions, logarithmic ones for far ones.

    Args:
        steps: (T,) positions.
        buckets: number of buckets, half of them for what comes before.

    Returns:
        (T, T) bucket of each key (second axis) as seen from each query (first axis).

    >>> relative_buckets(torch.tensor([0, 1, 200]), 8).tolist()
    [[0, 5, 7], [1, 0, 7], [3, 3, 0]]
    """
    distance = steps[None, :] - steps[:, None]
    half = buckets // 2
    exact, far = half // 2, distance.abs().clamp(min=1)
    logarithmic = torch.log(far / exact) / math.log(MAX_DISTANCE / exact) * (half - exact)
    large = (exact + logarithmic.long()).clamp(max=half - 1)
    near = torch.where(distance.abs() < exact, distance.abs(), large)
    return near + half * (distance > 0)
