"""TAILOR: common and private representations, hierarchical fusion, and a label decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.config.baselines import SequenceEncoderConfig, TailorConfig
from carat.models.base import Model, ModelOutputs, Sequences, check_modalities
from carat.models.baselines.common import SequenceEncoder
from carat.models.baselines.early_fusion import resample
from carat.models.baselines.gradient_reversal import reverse
from carat.models.baselines.label_decoder import NORM_EPS, LabelClassifiers, LabelDecoder, TransformerLayers
from carat.models.layers.dropout import dropout
from carat.models.layers.masking import masked_mean
from carat.models.losses.multilabel import LabelLoss
from carat.models.losses.terms import weighted_sum
from carat.utils.errors import ConfigError, did_you_mean


@dataclass
class TailorOutputs(ModelOutputs):
    """As `ModelOutputs`, with the representations, which are zero at invalid steps."""

    private: dict[str, Tensor]
    """(B, T_m, D) by modality."""
    common: dict[str, Tensor]
    """(B, T_m, D) by modality."""
    shared: Tensor
    """(B, S, D): sum of the common representations of all modalities on one time axis."""
    masks: Sequences
    """(B, T_m) by modality."""


class Tailor(Model):
    """TAILOR (Zhang, Chen, Shen and Wang, "Tailor Versatile Multi-modal Learning for Multi-label Emotion
    Recognition", AAAI 2022).

    One Transformer encoder per modality; from its hidden states (B, T_m, D), a shared generator computes a
    common and the modality's own generator a private representation. A modality discriminator is trained to
    recognize private representations and is misled by common ones (gradient reversal); an orthogonality loss
    separates both. Cross-modal Transformers fuse the private sequences one modality at a time, and finally
    the common one. A decoder with label queries attends to the fused sequence; each label has its own linear
    classifier.

    Not verified against the PDF: values are those of the released code where available (width, heads, depths
    of cross-modal encoder and decoder, dropout, weights of the losses, learning rate, epochs); the batch size
    is from memory, the released script has 8.

    Design choices: the same number of layers for all modalities (released: text 6, others 4); sequences are
    summed on a common time axis, see `resample`, instead of an alignment by a recurrent network with a CTC
    loss; positions of the cross-modal encoders count within each part of the sequence, so that padding has no
    effect; losses are averaged over valid steps and samples with the modality; one classifier per label
    (released: shared); weights are initialized with standard deviation 0.32 / √D, which equals the released
    0.02 at width 256, so that narrow networks train as well. With a single modality there is no
    discriminator, and its private and common sequences are fused.

    Unknown labels are left out of both cross-entropies; the other losses need no labels.

    Args:
        widths, labels: see `Model`.
        config: widths, depths and weights; the published values when None.

    Raises:
        ConfigError: the configuration is inconsistent, or names modalities that are not in `widths`.
    """

    weight_axes = {
        "decoder.embeddings": "L D",
        "classifiers.weight": "L D",
        "classifiers.bias": "L",
        "shared_classifier.weight": "L D",
        "shared_classifier.bias": "L",
        "discriminator.second.weight": "M D",
        "discriminator.second.bias": "M",
    }
    ordered_weights = ("fusions.*",)

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: TailorConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or TailorConfig()
        check_modalities(widths)
        hidden, encoder, num_labels = config.hidden, config.encoder, len(labels)
        if config.steps > encoder.max_length:
            raise ConfigError(f"method.steps {config.steps} exceeds encoder.max_length {encoder.max_length}")
        self.config, self.order = config, fusion_order(config.order, widths)
        self.max_length = dict.fromkeys(widths, encoder.max_length)
        self.encoders = nn.ModuleDict({m: SequenceEncoder(d, hidden, encoder) for m, d in widths.items()})
        self.private = nn.ModuleDict({m: Generator(hidden, config.private_dropout) for m in widths})
        self.common = Generator(hidden, config.common_dropout)
        self.fusions = nn.ModuleList(
            CrossEncoder(hidden, config.cross_layers, encoder) for _ in widths
        )  # one per modality after the first, and one for the common sequence
        self.decoder = LabelDecoder(num_labels, hidden, config.decoder_layers, encoder)
        self.classifiers = LabelClassifiers(num_labels, hidden)
        self.shared_classifier = nn.Linear(hidden, num_labels)
        self.discriminator = (
            Discriminator(hidden, len(widths), config.private_dropout) if len(widths) > 1 else None
        )
        self.label_loss = LabelLoss(num_labels)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.32 / hidden**0.5)
                nn.init.zeros_(part.bias)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> TailorOutputs:
        masks = {m: masks[m] for m in self.encoders}
        states = {m: encoder(features[m], masks[m]) for m, encoder in self.encoders.items()}
        private = {m: self.private[m](x, masks[m]) for m, x in states.items()}
        common = {m: self.common(x, masks[m]) for m, x in states.items()}
        lengths = torch.stack([mask.sum(1) for mask in masks.values()], dim=1)  # (B, M)
        axis = lengths.amax(1).clamp(max=self.config.steps)
        shared = sum(resample(common[m], masks[m], axis, self.config.steps) for m in common)
        assert isinstance(shared, Tensor)
        on_axis = torch.arange(self.config.steps, device=axis.device) < axis[:, None]
        fused = Part.of(private[self.order[0]], masks[self.order[0]])
        for fusion, m in zip(self.fusions, self.order[1:], strict=False):
            fused = fusion(Part.of(private[m], masks[m]), fused)
        fused = self.fusions[-1](fused, Part.of(shared, on_axis))
        logits = self.classifiers(self.decoder(fused.x, fused.mask))
        return TailorOutputs.from_logits(logits, private=private, common=common, shared=shared, masks=masks)

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        shared = self.shared_classifier(outputs.shared[:, 0])  # its first step, as in the released code
        targets = labels if targets is None else targets
        terms = {
            "labels": self.label_loss(outputs.logits, targets),
            "refined": self.label_loss(shared, targets),
            "orthogonality": orthogonality(outputs.private, outputs.common, outputs.masks),
        }
        weights = {"labels": 1.0} | self.config.weights.model_dump()
        if self.discriminator is not None:
            misled = {m: reverse(x) for m, x in outputs.common.items()}
            terms["private"] = self.discriminator(outputs.private, outputs.masks)
            terms["common"] = self.discriminator(misled, outputs.masks)
        return terms | {"total": weighted_sum(terms, {name: weights[name] for name in terms})}


class Generator(nn.Module):
    """Projection and tanh: hidden states (B, T, D) → representations (B, T, D), zeros at invalid steps."""

    def __init__(self, hidden: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Linear(hidden, hidden)
        self.dropout = dropout

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        refined = dropout(self.project(states), self.dropout if self.training else 0.0).tanh()
        return refined * mask[..., None].to(refined.dtype)


@dataclass
class Part:
    """A sequence to fuse."""

    x: Tensor
    """(B, T, D)."""
    mask: Tensor
    """(B, T), valid = True."""
    positions: Tensor
    """(T,), positions of the steps."""

    @classmethod
    def of(cls, x: Tensor, mask: Tensor) -> Part:
        """Create a part from the sequence of one modality."""
        return cls(x, mask, torch.arange(x.shape[1], device=x.device))


class CrossEncoder(nn.Module):
    """BERT-like Transformer over two concatenated sequences, with segment and position embeddings."""

    def __init__(self, hidden: int, layers: int, config: SequenceEncoderConfig) -> None:
        super().__init__()
        self.sides = nn.Parameter(torch.empty(2, hidden))
        self.positions = nn.Parameter(torch.empty(config.max_length, hidden))
        self.norm = nn.LayerNorm(hidden, eps=NORM_EPS)
        self.dropout = config.dropout
        self.layers = TransformerLayers(hidden, layers, config)
        for embeddings in (self.sides, self.positions):
            nn.init.normal_(embeddings, std=0.02)

    def forward(self, first: Part, second: Part) -> Part:
        positions = torch.cat((first.positions, second.positions))
        mask = torch.cat((first.mask, second.mask), dim=1)
        x = torch.cat((first.x + self.sides[0], second.x + self.sides[1]), dim=1) + self.positions[positions]
        x = dropout(self.norm(x), self.dropout if self.training else 0.0)
        return Part(self.layers(x, mask), mask, positions)


class Discriminator(nn.Module):
    """Modality classifier of single time steps: D → D/2 → M."""

    def __init__(self, hidden: int, modalities: int, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.first = nn.Linear(hidden, hidden // 2)
        self.second = nn.Linear(hidden // 2, modalities)

    def forward(self, sequences: Sequences, masks: Sequences) -> Tensor:
        """Compute the cross-entropy of sequences (B, T_m, D): mean over steps, sum over modalities."""
        p = self.dropout if self.training else 0.0
        total = torch.zeros((), device=self.first.weight.device)
        for index, (m, x) in enumerate(sequences.items()):
            logits = self.second(F.relu(dropout(self.first(x), p)))
            total = total + masked_mean(-logits.log_softmax(-1)[..., index], masks[m])
        return total


def orthogonality(private: Sequences, common: Sequences, masks: Sequences) -> Tensor:
    """Compute Σ ‖A Bᵀ‖² (Frobenius) over pairs of private and common, and of two private representations.

    Each term is averaged over the samples with both modalities. Representations (T, D) are zero at invalid
    steps; as ‖A Bᵀ‖² = ⟨AᵀA, BᵀB⟩, only D × D products are computed.
    """
    present = {m: mask.any(1) for m, mask in masks.items()}
    own = {m: x.transpose(1, 2) @ x for m, x in private.items()}
    shared = {m: x.transpose(1, 2) @ x for m, x in common.items()}
    pairs = [(own[m], shared[m], present[m]) for m in own]
    pairs += [(own[m], own[n], present[m] & present[n]) for m, n in combinations(own, 2)]
    total = sum(masked_mean((a * b).sum((1, 2)), both) for a, b, both in pairs)
    assert isinstance(total, Tensor)
    return total


def fusion_order(named: list[str], widths: Mapping[str, int]) -> list[str]:
    """Order the modalities of the data, starting with the named ones.

    Raises:
        ConfigError: a name is neither a modality of the data nor in the default order.
    """
    for m in named:
        if m not in widths and m not in TailorConfig().order:
            hint = did_you_mean(m, widths) or f"; available: {', '.join(widths)}"
            raise ConfigError(f"method.order: the data has no modality '{m}'{hint}")
    return [m for m in dict.fromkeys([*named, *widths]) if m in widths]
