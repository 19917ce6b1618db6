"""AMP: adversarial masking of time steps and adversarial perturbation of parameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from carat.config.baselines import AmpConfig, SequenceEncoderConfig
from carat.models.base import Model, ModelOutputs, Sequences, check_modalities
from carat.models.baselines.gradient_reversal import reverse
from carat.models.baselines.label_decoder import NORM_EPS, LabelClassifiers, LabelDecoder, TransformerLayers
from carat.models.layers.dropout import dropout
from carat.models.losses.multilabel import LabelLoss
from carat.models.losses.terms import weighted_sum

BISECTION_STEPS = 30
"""Bisection steps of `soft_top_fraction`."""
SEARCH_MARGIN = 20.0
"""Margin of the threshold search beyond [0, 1], in temperatures."""


@dataclass
class AmpOutputs(ModelOutputs):
    """As `ModelOutputs`, with what the adversarial losses need."""

    embedded: dict[str, Tensor]
    """(B, T_m, D) by modality: embedded steps, before attention."""
    states: dict[str, Tensor]
    """(B, T_m, D) by modality: hidden states of the uni-modal encoders."""
    masks: Sequences
    """(B, T_m) by modality."""


class Amp(Model):
    """AMP (Ge, Jiang, Cheng, Wang, Chen and Gu, "Learning Robust Multi-Modal Representation for Multi-Label
    Emotion Recognition via Adversarial Masking and Perturbation", WWW 2023).

    One Transformer encoder per modality (B, T_m, D), one over the concatenated sequences, and a decoder with
    label queries. Adversarial masking: a scorer per modality rates its time steps, and the fraction with the
    highest scores is softly masked; the scorers maximize the loss (gradient reversal), all other parameters
    minimize it. Adversarial perturbation: every parameter tensor of the fusion Transformer is perturbed along
    its gradient, relative to its norm, and the loss at the perturbed parameters is minimized as well. The
    loss is asymmetric. Both are used only in training.

    Not verified against the PDF: values are the defaults of the released code (widths, depths, dropout,
    weight of the masked loss, exponents, learning rate, batch size, epochs).

    Design choices: the budget is a fraction of the valid steps (released: 24 of 60); its threshold is found
    by bisection (released: optimal transport, whose solution this is for a single threshold); scorers take
    detached hidden states, so that only they are adversarial; the perturbation is relative (released: norm 1,
    about 5 % of a weight matrix) and its term is the loss (released: divergence from the unperturbed
    predictions); position and modality embeddings; GELU; one classifier per label (released: shared); the
    same learning rate schedule as all methods.

    Unknown labels are left out of all losses, also of the one along whose gradient parameters are perturbed.

    Args:
        widths, labels: see `Model`.
        config: widths, depths, budgets and weights; the published values when None.

    Raises:
        ConfigError: the configuration is inconsistent.
    """

    weight_axes = {
        "decoder.embeddings": "L D",
        "classifiers.weight": "L D",
        "classifiers.bias": "L",
        "fusion.modalities": "M D",
    }

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: AmpConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or AmpConfig()
        check_modalities(widths)
        hidden, encoder, num_labels = config.hidden, config.encoder, len(labels)
        self.config = config
        self.weights = {"labels": 1.0} | config.weights.model_dump()
        self.max_length = dict.fromkeys(widths, encoder.max_length)
        self.projections = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(d, hidden), nn.LayerNorm(hidden, eps=NORM_EPS))
                for m, d in widths.items()
            }
        )
        self.positions = nn.Parameter(torch.empty(encoder.max_length, hidden))
        self.encoders = nn.ModuleDict({m: TransformerLayers(hidden, encoder.layers, encoder) for m in widths})
        self.fusion = Fusion(len(widths), hidden, config.fusion_layers, encoder)
        self.decoder = LabelDecoder(num_labels, hidden, config.decoder_layers, encoder)
        self.classifiers = LabelClassifiers(num_labels, hidden)
        self.scorers = nn.ModuleDict({m: nn.Linear(hidden, 1) for m in widths if config.weights.masked})
        self.label_loss = LabelLoss(
            num_labels,
            "asymmetric",
            gamma_neg=config.gamma_neg,
            gamma_pos=config.gamma_pos,
            margin=config.margin,
        )
        nn.init.normal_(self.positions, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.xavier_uniform_(part.weight)
                nn.init.zeros_(part.bias)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> AmpOutputs:
        masks = {m: masks[m] for m in self.encoders}
        p = self.config.encoder.dropout if self.training else 0.0
        embedded = {m: dropout(project(features[m]), p) for m, project in self.projections.items()}
        states = self._encode(embedded, masks)
        logits = self._classify(self.fusion(states, masks), masks)
        return AmpOutputs.from_logits(logits, embedded=embedded, states=states, masks=masks)

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        masks, targets = outputs.masks, labels if targets is None else targets
        terms = {"labels": self.label_loss(outputs.logits, targets)}
        if self.weights["masked"]:
            masked = self.mask_steps(outputs.embedded, outputs.states, masks)
            states = self._encode(masked, masks)
            terms["masked"] = self.label_loss(self._classify(self.fusion(states, masks), masks), targets)
        if self.weights["perturbed"]:
            perturbed = self.perturbed_parameters(outputs.states, masks, targets)
            fused = functional_call(self.fusion, perturbed, (outputs.states, masks))
            terms["perturbed"] = self.label_loss(self._classify(fused, masks), targets)
        return terms | {"total": weighted_sum(terms, {name: self.weights[name] for name in terms})}

    def mask_steps(self, embedded: Sequences, states: Sequences, masks: Sequences) -> dict[str, Tensor]:
        """Mask embedded steps (B, T_m, D) by the scores of the adversary."""
        masked = {}
        for m, scorer in self.scorers.items():
            scores = reverse(scorer(states[m].detach())[..., 0].float().sigmoid())
            memberships = soft_top_fraction(scores, masks[m], self.config.mask_ratio, self.config.temperature)
            masked[m] = embedded[m] * (1 - memberships[..., None]).to(embedded[m].dtype)
        return masked

    def perturbed_parameters(self, states: Sequences, masks: Sequences, targets: Tensor) -> dict[str, Tensor]:
        """Perturb the fusion's parameters along the gradient of the loss, differentiably."""
        parameters = dict(self.fusion.named_parameters())
        with torch.enable_grad():
            fused = self.fusion({m: x.detach() for m, x in states.items()}, masks)
            loss = self.label_loss(self._classify(fused, masks), targets)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
        perturbed = {}
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            unit = gradient / gradient.norm().clamp(min=torch.finfo(gradient.dtype).tiny)
            perturbed[name] = parameter + self.config.radius * parameter.detach().norm() * unit
        return perturbed

    def _encode(self, embedded: Sequences, masks: Sequences) -> dict[str, Tensor]:
        return {
            m: encoder(embedded[m] + self.positions[: embedded[m].shape[1]], masks[m])
            for m, encoder in self.encoders.items()
        }

    def _classify(self, fused: Tensor, masks: Sequences) -> Tensor:
        logits: Tensor = self.classifiers(self.decoder(fused, torch.cat(list(masks.values()), dim=1)))
        return logits


class Fusion(nn.Module):
    """Transformer over the concatenated sequences, with modality embeddings."""

    def __init__(self, modalities: int, hidden: int, layers: int, config: SequenceEncoderConfig) -> None:
        super().__init__()
        self.modalities = nn.Parameter(torch.empty(modalities, hidden))
        self.layers = TransformerLayers(hidden, layers, config)
        nn.init.normal_(self.modalities, std=0.02)

    def forward(self, states: Sequences, masks: Sequences) -> Tensor:
        """Hidden states (B, T_m, D) with masks (B, T_m) → (B, Σ T_m, D)."""
        parts = [x + self.modalities[i] for i, x in enumerate(states.values())]
        fused: Tensor = self.layers(torch.cat(parts, dim=1), torch.cat(list(masks.values()), dim=1))
        return fused


def soft_top_fraction(scores: Tensor, mask: Tensor, fraction: float, temperature: float) -> Tensor:
    """Compute soft membership in the fraction of highest scores: σ((score − threshold) / temperature).

    The threshold of a sample is such that memberships sum to the fraction of its valid steps; gradients
    include the dependence of the threshold on the scores.

    Args:
        scores: (B, T), in [0, 1].
        mask: (B, T), valid = True.
        fraction: fraction of the valid steps.
        temperature: lower values give harder memberships.

    Returns:
        (B, T) in [0, 1], 0 where not valid.
    """
    valid = mask.to(scores.dtype)
    budget = fraction * valid.sum(1, keepdim=True)

    def membership(threshold: Tensor) -> Tensor:
        return ((scores - threshold) / temperature).sigmoid() * valid

    with torch.no_grad():
        low = torch.full_like(budget, -SEARCH_MARGIN * temperature)
        high = torch.full_like(budget, 1 + SEARCH_MARGIN * temperature)
        for _ in range(BISECTION_STEPS):
            middle = (low + high) / 2
            above = membership(middle).sum(1, keepdim=True) > budget
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        threshold = (low + high) / 2
        selected = membership(threshold)
        slope = (selected * (1 - selected)).sum(1, keepdim=True) / temperature
    step = (membership(threshold).sum(1, keepdim=True) - budget) / slope.clamp(min=1e-6)  # Newton step
    return membership(threshold + step)
