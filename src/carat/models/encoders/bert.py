"""BERT and RoBERTa on packed batches, with the weight names of Hugging Face."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.models.layers.dropout import add_dropped, dropout
from carat.models.layers.linear import linear
from carat.models.layers.packing import LengthGroup, PackedBatch
from carat.models.layers.transformer import attend_packed

OFFSET = ("roberta", "xlm-roberta", "camembert")
"""Types whose first position comes after the padding token's id."""


def is_bert(config: dict[str, Any]) -> bool:
    """Whether `Bert` computes what a configuration describes."""
    return (
        config["model_type"] in ("bert", *OFFSET)
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


class Bert(nn.Module):
    """BERT or RoBERTa without pooler (Devlin et al. 2019; Liu et al. 2019).

    Args:
        config: content of `config.json`; what it leaves out is as published.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        padding = int(config.get("pad_token_id") or 0)
        self.first = padding + 1 if config["model_type"] in OFFSET else 0
        self.dropout = float(config.get("hidden_dropout_prob", 0.1))
        positions = config.get("max_position_embeddings", 512)
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config["vocab_size"], hidden, padding_idx=padding),
                "position_embeddings": nn.Embedding(positions, hidden),
                "token_type_embeddings": nn.Embedding(config.get("type_vocab_size", 2), hidden),
                "LayerNorm": nn.LayerNorm(hidden, eps=eps),
            }
        )
        layers = [BertLayer(config, eps) for _ in range(config["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})

    def forward(self, ids: Tensor, packed: PackedBatch, types: Tensor | None = None) -> Tensor:
        """Hidden states (R, T, D) of token ids (R, T), zeros where the layout has padding.

        Types (R, T) are the tokens' types, 0 by default; a model with one type takes no notice.
        """
        whole, share = packed.whole, self.dropout if self.training else 0.0
        places = torch.arange(self.first, self.first + ids.shape[1], device=ids.device).expand_as(ids)
        table: Any = self.embeddings
        rows = (
            table["word_embeddings"](whole.pack(ids[..., None])[:, 0])
            + table["position_embeddings"](whole.pack(places[..., None])[:, 0])
            + self._types(types, whole)
        )
        rows = dropout(table["LayerNorm"](rows), share)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            rows = layer(rows, packed.groups)
        return whole.unpack(rows)

    def _types(self, types: Tensor | None, whole: LengthGroup) -> Tensor:
        known: Any = self.embeddings["token_type_embeddings"]
        if types is None or len(known.weight) == 1:
            first: Tensor = known.weight[0]
            return first
        found: Tensor = known(whole.pack(types[..., None])[:, 0])
        return found


class BertLayer(nn.Module):
    """One post-norm Transformer layer.

    Args:
        config: see `Bert`.
        eps: of the LayerNorms.
    """

    def __init__(self, config: dict[str, Any], eps: float) -> None:
        super().__init__()
        hidden, wide = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]
        self.dropout = float(config.get("hidden_dropout_prob", 0.1))
        self.attention_dropout = float(config.get("attention_probs_dropout_prob", 0.1))
        self.attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(
                    {name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")}
                ),
                "output": nn.ModuleDict(
                    {"dense": nn.Linear(hidden, hidden), "LayerNorm": nn.LayerNorm(hidden, eps=eps)}
                ),
            }
        )
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, wide)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(wide, hidden), "LayerNorm": nn.LayerNorm(hidden, eps=eps)}
        )

    def forward(self, x: Tensor, groups: list[LengthGroup]) -> Tensor:
        """Packed rows x (N, D) of these groups → (N, D)."""
        share = self.dropout if self.training else 0.0
        asked: Any = self.attention["self"]
        weight = torch.cat([part.weight for part in asked.values()])  # one product instead of three
        bias = torch.cat([part.bias for part in asked.values()])
        attended = attend_packed(
            linear(x, weight, bias), groups, self.heads, self.attention_dropout if self.training else 0.0
        )
        x = _closed(self.attention["output"], x, attended, share)
        wide: Any = self.intermediate["dense"]
        return _closed(self.output, x, F.gelu(linear(x, wide.weight, wide.bias)), share)


def _closed(output: Any, x: Tensor, branch: Tensor, share: float) -> Tensor:
    """LayerNorm(x + dropout(dense(branch)))."""
    dense = output["dense"]
    closed: Tensor = output["LayerNorm"](add_dropped(x, linear(branch, dense.weight, dense.bias), share))
    return closed
