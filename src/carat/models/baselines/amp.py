"""AMP: adversarial masking of time steps, adversarial perturbation of parameters."""

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

HALVINGS = 30
"""Halvings of the interval in which `soft_top_share` searches its threshold."""
FAR = 20.0
"""How far outside of all scores the threshold can lie, in temperatures."""


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

    A Transformer encoder for each modality (B, T_m, D), one over all sequences end to end, and a decoder
    whose queries are the labels. Adversarial masking: a network for each modality scores its steps; the
    share with the highest scores is hidden, softly, by a threshold that keeps the budget; the scores learn to
    raise the loss (gradient reversal), everything else to lower it. Adversarial perturbation: every parameter
    tensor of the Transformer over all sequences is moved along its gradient, by a length relative to its own,
    and the loss there is lowered too. The loss is asymmetric. Neither takes part in recognition.

    Not checked against the PDF: numbers are the defaults of the released code (widths, depths, dropout,
    weight of the masked loss, exponents, learning rate, batch size, epochs).

    Chosen here: the budget is a share of the valid steps (released: 24 of 60); its threshold is found by
    halving an interval (released: optimal transport, of which this is the solution for one threshold); the
    scores see hidden states without gradient, so that only they are adverse; the move is relative (released:
    of length 1, some .05 of a weight matrix) and the term is the loss at the moved parameters (released:
    divergence from the predictions at the others); embeddings of positions and modalities; GELU; a classifier
    for each label (released: one for all); the usual schedule of the learning rate.

    Args:
        widths, labels: see `Model`.
        config: widths, depths, budgets and weights; the published values when None.

    Raises:
        ConfigError: the configuration contradicts itself.
    """

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
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        masks = outputs.masks
        terms = {"labels": self.label_loss(outputs.logits, labels)}
        if self.weights["masked"]:
            hidden = self.hide(outputs.embedded, outputs.states, masks)
            states = self._encode(hidden, masks)
            terms["masked"] = self.label_loss(self._classify(self.fusion(states, masks), masks), labels)
        if self.weights["perturbed"]:
            moved = self.moved(outputs.states, masks, labels)
            fused = functional_call(self.fusion, moved, (outputs.states, masks))
            terms["perturbed"] = self.label_loss(self._classify(fused, masks), labels)
        return terms | {"total": weighted_sum(terms, {name: self.weights[name] for name in terms})}

    def hide(self, embedded: Sequences, states: Sequences, masks: Sequences) -> dict[str, Tensor]:
        """Embedded steps (B, T_m, D), each scaled by how little of it the adversary hides."""
        hidden = {}
        for m, scorer in self.scorers.items():
            scores = reverse(scorer(states[m].detach())[..., 0].float().sigmoid())
            shares = soft_top_share(scores, masks[m], self.config.mask_ratio, self.config.temperature)
            hidden[m] = embedded[m] * (1 - shares[..., None]).to(embedded[m].dtype)
        return hidden

    def moved(self, states: Sequences, masks: Sequences, labels: Tensor) -> dict[str, Tensor]:
        """The fusion's parameters, moved so that the loss rises; gradients pass to the parameters."""
        parameters = dict(self.fusion.named_parameters())
        with torch.enable_grad():
            fused = self.fusion({m: x.detach() for m, x in states.items()}, masks)
            loss = self.label_loss(self._classify(fused, masks), labels)
            gradients = torch.autograd.grad(loss, list(parameters.values()))
        moved = {}
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
            unit = gradient / gradient.norm().clamp(min=torch.finfo(gradient.dtype).tiny)
            moved[name] = parameter + self.config.radius * parameter.detach().norm() * unit
        return moved

    def _encode(self, embedded: Sequences, masks: Sequences) -> dict[str, Tensor]:
        return {
            m: encoder(embedded[m] + self.positions[: embedded[m].shape[1]], masks[m])
            for m, encoder in self.encoders.items()
        }

    def _classify(self, fused: Tensor, masks: Sequences) -> Tensor:
        logits: Tensor = self.classifiers(self.decoder(fused, torch.cat(list(masks.values()), dim=1)))
        return logits


class Fusion(nn.Module):
    """A Transformer over all modalities' sequences end to end, with embeddings of the modality."""

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


def soft_top_share(scores: Tensor, mask: Tensor, share: float, temperature: float) -> Tensor:
    """Soft membership in the share of steps with the highest scores: σ((score − threshold) / temperature).

    A sample's threshold is where its steps' values add up to the share of its valid steps; the gradient
    includes its dependence on the scores.

    Args:
        scores: (B, T), in [0, 1].
        mask: (B, T), valid = True.
        share: of the valid steps.
        temperature: the lower, the closer to a hard choice.

    Returns:
        (B, T) in [0, 1], 0 where not valid.
    """
    valid = mask.to(scores.dtype)
    budget = share * valid.sum(1, keepdim=True)

    def chosen(threshold: Tensor) -> Tensor:
        return ((scores - threshold) / temperature).sigmoid() * valid

    with torch.no_grad():
        low = torch.full_like(budget, -FAR * temperature)
        high = torch.full_like(budget, 1 + FAR * temperature)
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            above = chosen(middle).sum(1, keepdim=True) > budget
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        threshold = (low + high) / 2
        near = chosen(threshold)
        slope = (near * (1 - near)).sum(1, keepdim=True) / temperature
    step = (chosen(threshold).sum(1, keepdim=True) - budget) / slope.clamp(min=1e-6)  # of Newton
    return chosen(threshold + step)
