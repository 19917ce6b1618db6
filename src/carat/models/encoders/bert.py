"""BERT and RoBERTa encoders that skip padding on a CPU. Parameters are named as in published checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from carat.models.layers.dropout import add_dropped, dropout
from carat.models.layers.linear import linear
from carat.models.layers.packing import LengthGroup, PackedBatch
from carat.models.layers.transformer import attend_packed

OFFSET_POSITIONS = ("roberta", "xlm-roberta", "camembert")
"""Model types whose position ids start after the id of the padding token."""


def is_bert(config: dict[str, Any]) -> bool:
    """Whether `Bert` implements the architecture of a configuration."""
    return (
        config["model_type"] in ("bert", *OFFSET_POSITIONS)
        and config.get("hidden_act", "gelu") == "gelu"
        and config.get("position_embedding_type", "absolute") == "absolute"
        and not config.get("is_decoder", False)
    )


class Bert(nn.Module):
    """BERT or RoBERTa encoder without pooler.

    Args:
        config: contents of `config.json`; missing keys take the published defaults.

    Source: Devlin et al. 2019; Liu et al. 2019.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        hidden, eps = config["hidden_size"], config.get("layer_norm_eps", 1e-12)
        padding_idx = int(config.get("pad_token_id") or 0)
        self.position_offset = padding_idx + 1 if config["model_type"] in OFFSET_POSITIONS else 0
        self.dropout = float(config.get("hidden_dropout_prob", 0.1))
        positions = config.get("max_position_embeddings", 512)
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config["vocab_size"], hidden, padding_idx=padding_idx),
                "position_embeddings": nn.Embedding(positions, hidden),
                "token_type_embeddings": nn.Embedding(config.get("type_vocab_size", 2), hidden),
                "LayerNorm": nn.LayerNorm(hidden, eps=eps),
            }
        )
        layers = [BertLayer(config, eps) for _ in range(config["num_hidden_layers"])]
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(layers)})
        self.checkpoints = False
        """Whether activations within layers are recomputed in the backward pass."""

    def forward(self, input_ids: Tensor, packed: PackedBatch, token_type_ids: Tensor | None = None) -> Tensor:
        """Encode token ids.

        Args:
            input_ids: (R, T), the samples that `packed` selects.
            packed: packed batch.
            token_type_ids: (R, T), all 0 by default; ignored by a model with a single token type.

        Returns:
            Hidden states (R, T, D), zeros at padding.
        """
        whole, p = packed.whole, self.dropout if self.training else 0.0
        position_ids = torch.arange(
            self.position_offset, self.position_offset + input_ids.shape[1], device=input_ids.device
        ).expand_as(input_ids)
        embeddings: Any = self.embeddings
        rows = (
            embeddings["word_embeddings"](whole.pack(input_ids[..., None])[:, 0])
            + embeddings["position_embeddings"](whole.pack(position_ids[..., None])[:, 0])
            + self._token_type_embeddings(token_type_ids, whole)
        )
        rows = dropout(embeddings["LayerNorm"](rows), p)
        layers: Any = self.encoder["layer"]
        for layer in layers:
            rows = run_layer(layer, rows, packed.groups, checkpoints=self.checkpoints)
        return whole.unpack(rows)

    def _token_type_embeddings(self, token_type_ids: Tensor | None, whole: LengthGroup) -> Tensor:
        """(N, D), or (D,) if all tokens have type 0."""
        table: Any = self.embeddings["token_type_embeddings"]
        if token_type_ids is None or len(table.weight) == 1:
            first: Tensor = table.weight[0]
            return first
        rows: Tensor = table(whole.pack(token_type_ids[..., None])[:, 0])
        return rows


class PostNormLayer(nn.Module):
    """A post-norm Transformer layer with parameters named as in published checkpoints, without its attention.

    Args:
        config: see `Bert`.
        eps: epsilon of the LayerNorms.
        attention: parameters of the attention.
    """

    def __init__(self, config: dict[str, Any], eps: float, attention: nn.ModuleDict) -> None:
        super().__init__()
        hidden, intermediate = config["hidden_size"], config["intermediate_size"]
        self.heads = config["num_attention_heads"]
        self.dropout = float(config.get("hidden_dropout_prob", 0.1))
        self.attention_dropout = float(config.get("attention_probs_dropout_prob", 0.1))
        self.attention = attention
        self.intermediate = nn.ModuleDict({"dense": nn.Linear(hidden, intermediate)})
        self.output = nn.ModuleDict(
            {"dense": nn.Linear(intermediate, hidden), "LayerNorm": nn.LayerNorm(hidden, eps=eps)}
        )

    def transform(
        self,
        x: Tensor,
        projections: Sequence[Any],
        dense: Any,
        norm: Any,
        groups: list[LengthGroup],
        bias: Tensor | None = None,
    ) -> Tensor:
        """Apply attention and feed-forward network.

        Args:
            x: packed rows (N, D) of all groups.
            projections: linear layers of queries, keys and values.
            dense: linear layer behind the attention.
            norm: LayerNorm behind it.
            groups: groups of samples.
            bias: (heads, T, T), added to the scores of the attention.

        Returns:
            (N, D).
        """
        p = self.dropout if self.training else 0.0
        attention_p = self.attention_dropout if self.training else 0.0
        weight = torch.cat([part.weight for part in projections])  # one product instead of three
        projected = linear(x, weight, torch.cat([part.bias for part in projections]))
        attended = attend_packed(projected, groups, self.heads, attention_p, bias)
        x = _project_add_norm(dense, norm, x, attended, p)
        inner: Any = self.intermediate["dense"]
        activated = F.gelu(linear(x, inner.weight, inner.bias))
        return _project_add_norm(self.output["dense"], self.output["LayerNorm"], x, activated, p)


class BertLayer(PostNormLayer):
    """One layer of BERT.

    Args:
        config: see `Bert`.
        eps: epsilon of the LayerNorms.
    """

    def __init__(self, config: dict[str, Any], eps: float) -> None:
        hidden = config["hidden_size"]
        attention = nn.ModuleDict(
            {
                "self": nn.ModuleDict(
                    {name: nn.Linear(hidden, hidden) for name in ("query", "key", "value")}
                ),
                "output": nn.ModuleDict(
                    {"dense": nn.Linear(hidden, hidden), "LayerNorm": nn.LayerNorm(hidden, eps=eps)}
                ),
            }
        )
        super().__init__(config, eps, attention)

    def forward(self, x: Tensor, groups: list[LengthGroup]) -> Tensor:
        """Packed rows (N, D) of all groups → (N, D)."""
        projections: Any = self.attention["self"]
        output: Any = self.attention["output"]
        return self.transform(x, list(projections.values()), output["dense"], output["LayerNorm"], groups)


def run_layer(layer: nn.Module, *inputs: Any, checkpoints: bool) -> Tensor:
    """Outputs (N, D) of a layer, whose activations are recomputed in the backward pass if `checkpoints`."""
    if checkpoints and torch.is_grad_enabled():
        states: Tensor = checkpoint(layer, *inputs, use_reentrant=False)
    else:
        states = layer(*inputs)
    return states


def _project_add_norm(dense: Any, norm: Any, x: Tensor, branch: Tensor, p: float) -> Tensor:
    """LayerNorm(x + dropout(dense(branch)))."""
    normed: Tensor = norm(add_dropped(x, linear(branch, dense.weight, dense.bias), p))
    return normed
