"""MulT: cross-modal Transformers between all pairs of modalities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.baselines import MultConfig
from carat.models.base import Model, ModelOutputs, check_heads, check_modalities
from carat.models.layers.dropout import add_dropped, dropout
from carat.models.layers.transformer import attend
from carat.models.losses.multilabel import LabelLoss


class Mult(Model):
    """Cross-modal Transformers for each ordered pair of modalities, then self-attention for each target.

    Source: Tsai et al., "Multimodal Transformer for Unaligned Multimodal Language Sequences", ACL 2019. A
    temporal convolution projects each modality to width D, and sinusoidal positions are added. For each
    target, one cross-modal Transformer per source attends from the target's steps to the low-level steps of
    the source; the results are concatenated over the sources, (B, T, (M − 1) · D), and passed to a
    self-attention Transformer, whose last valid step is used. The vectors of all targets are concatenated and
    passed to a residual two-layer perceptron and a linear classifier. Widths, depths, dropouts and training
    hyperparameters are those of the paper's table for CMU-MOSEI.

    Design choices: LayerNorm on the input features; convolutions that preserve the length; positions added
    once, to the low-level sequences; the standard pre-norm residual (the paper's equation adds the normalized
    input) with one LayerNorm for query and source; a feed-forward width of 4 D; as many self-attention as
    cross-modal layers; one dropout for attention weights and hidden states; linear decay of the learning
    rate. Attention to an absent source adds zero; the vector of an absent target is zero. A single modality
    passes only its self-attention Transformer.

    Unknown labels are left out of the cross-entropy.

    Args:
        widths, labels: see `Model`.
        config: widths, depths and dropouts; the published values when None.

    Raises:
        ConfigError: the width is not divisible by the number of heads.
    """

    weight_axes = {"classifier.weight": "L D", "classifier.bias": "L"}
    ordered_weights = ("own.*", "linear1.*", "linear2.*", "classifier.weight")

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: MultConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or MultConfig()
        check_modalities(widths)
        check_heads(config.hidden, config.heads, by="method.heads")
        names = list(widths)
        joined = max(1, len(names) - 1) * config.hidden
        self.config = config
        self.norms = nn.ModuleDict({m: nn.LayerNorm(d) for m, d in widths.items()})
        self.convolutions = nn.ModuleDict(
            {
                m: nn.Conv1d(
                    d,
                    config.hidden,
                    config.word_kernel if m == config.words else config.kernel,
                    padding="same",
                    bias=False,
                )
                for m, d in widths.items()
            }
        )
        self.cross = nn.ModuleDict(
            {
                target: nn.ModuleDict(
                    {source: Transformer(config.hidden, config) for source in names if source != target}
                )
                for target in names
            }
        )
        self.own = nn.ModuleDict({target: Transformer(joined, config) for target in names})
        total = len(names) * joined
        self.linear1, self.linear2 = nn.Linear(total, total), nn.Linear(total, total)
        self.classifier = nn.Linear(total, len(labels))
        self.label_loss = LabelLoss(len(labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        low = {m: self._low_level(m, features[m], masks[m]) for m in self.norms}  # (B, T, D)
        present = {m: masks[m].any(1)[:, None] for m in low}
        attendable = {m: masks[m] | (_steps(masks[m]) == 0) & ~present[m] for m in low}  # at least one step
        vectors = []
        for target, sources in self.cross.items():
            assert isinstance(sources, nn.ModuleDict)
            parts = [
                transformer(low[target], low[m], attendable[m], present[m][..., None])
                for m, transformer in sources.items()
            ]
            sequence = torch.cat(parts, dim=-1) if parts else low[target]
            last = (_steps(attendable[target]) * attendable[target]).amax(1)
            own = self.own[target]
            assert isinstance(own, Transformer)
            vectors.append(own.read(sequence, attendable[target], last) * present[target])
        x = torch.cat(vectors, dim=-1)
        p = self.config.output_dropout if self.training else 0.0
        return ModelOutputs.from_logits(self.classifier(x + self.linear2(dropout(self.linear1(x).relu(), p))))

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        return {"total": self.label_loss(outputs.logits, labels if targets is None else targets)}

    def _low_level(self, m: str, x: Tensor, mask: Tensor) -> Tensor:
        """Convolve features x (B, T, d) of modality m, giving (B, T, D); invalid steps count as zeros."""
        x = self.norms[m](x).masked_fill(~mask[..., None], 0)
        if m == self.config.words and self.training:
            x = dropout(x, self.config.word_dropout)
        convolved: Tensor = self.convolutions[m](x.transpose(1, 2)).transpose(1, 2)
        return convolved + sinusoids(_steps(mask), self.config.hidden).to(convolved.dtype)


class Transformer(nn.Module):
    """Pre-norm layers and a final LayerNorm.

    Args:
        width: D.
        config: number of layers and heads, dropout.
    """

    def __init__(self, width: int, config: MultConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(width, config.heads, config.dropout) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor, present: Tensor) -> Tensor:
        """Update the target (B, T, D) by attention to the source in every layer; see `Layer`."""
        for layer in self.layers:
            target = layer(target, source, mask, present)
        out: Tensor = self.norm(target)
        return out

    def read(self, x: Tensor, mask: Tensor, step: Tensor) -> Tensor:
        """Apply self-attention to x (B, T, D) with mask (B, T); return (B, D) at the given steps (B,)."""
        for layer in self.layers[:-1]:
            x = layer(x, x, mask)
        one = x.gather(
            1, step[:, None, None].expand(-1, -1, x.shape[-1])
        )  # the last layer needs only this step
        out: Tensor = self.norm(self.layers[-1](one, x, mask))[:, 0]
        return out


class Layer(nn.Module):
    """Pre-norm layer: attention from a target to a source, and a ReLU feed-forward part of width 4 D.

    Args:
        width: D.
        heads: number of attention heads; must divide D.
        dropout: dropout of attention weights, of both residual branches and in the feed-forward part.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm1 = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out_proj = nn.Linear(width, width)
        self.feedforward_norm = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, 4 * width)
        self.linear2 = nn.Linear(4 * width, width)

    def forward(self, target: Tensor, source: Tensor, mask: Tensor, present: Tensor | None = None) -> Tensor:
        """Update the target by attention to the source.

        Args:
            target: (B, T, D).
            source: (B, S, D).
            mask: (B, S) of the source, valid = True, at least one per sample.
            present: (B, 1, 1), whether the source is present; None if always.

        Returns:
            (B, T, D).
        """
        p = self.dropout if self.training else 0.0
        query = self._split(self.query(self.norm1(target)))
        key, value = self.key_value(self.norm1(source)).chunk(2, dim=-1)
        mixed = attend(query, self._split(key), self._split(value), mask, p)
        attended = self.out_proj(mixed.transpose(1, 2).flatten(2))
        target = add_dropped(target, attended if present is None else attended * present, p)
        inner = self.linear1(self.feedforward_norm(target)).relu()
        return add_dropped(target, self.linear2(dropout(inner, p)), p)

    def _split(self, x: Tensor) -> Tensor:
        """(B, T, D) → (B, heads, T, D / heads)."""
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


def sinusoids(steps: Tensor, width: int) -> Tensor:
    """Compute sinusoidal positions (Vaswani et al. 2017), sines before cosines: steps (T,) → (T, width)."""
    pairs = torch.arange((width + 1) // 2, device=steps.device)
    angles = steps[:, None] * 10000.0 ** (-2 * pairs / width)
    return torch.cat((angles.sin(), angles.cos()), dim=-1)[:, :width]


def _steps(mask: Tensor) -> Tensor:
    """0 … T − 1 for a mask (B, T)."""
    return torch.arange(mask.shape[1], device=mask.device)
