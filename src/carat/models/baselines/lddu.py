"""LDDU: label-wise latent Gaussians with uncertainty-aware fusion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.config.baselines import LdduConfig
from carat.models.base import Model, ModelOutputs, check_modalities
from carat.models.baselines.common import SequenceEncoder
from carat.models.carat.label_attention import LabelAttention
from carat.models.carat.memory_bank import MemoryBank
from carat.models.layers.masking import masked_mean, modality_mask_of
from carat.models.losses.contrastive import contrast_rows, supcon_loss
from carat.models.losses.known import known_mean
from carat.models.losses.multilabel import LabelLoss
from carat.models.losses.terms import weighted_sum

MAX_LOG_VARIANCE = 10.0
"""Bound of the absolute log-variance, which keeps variances and their inverses finite."""


@dataclass
class LdduOutputs(ModelOutputs):
    """As `ModelOutputs`, with the Gaussians; values of absent modalities are undefined."""

    modality_mask: Tensor
    """(B, M) bool."""
    means: Tensor
    """(B, M, L, P)."""
    log_variances: Tensor
    """(B, M, L, P)."""
    weights: Tensor
    """(B, M, L), fusion weights; they sum to 1 over the present modalities and are 0 elsewhere."""


class Lddu(Model):
    """Label-wise Gaussians per modality with contrastive loss, calibration and inverse-variance fusion.

    Source: Huang et al., "Latent Distribution Decouple for Uncertain-Aware Multimodal Multi-label Emotion
    Recognition", ACL Findings 2025 (arXiv 2502.13954). A Transformer and label-wise attention compute
    one feature per modality and label, and linear heads its mean and log-variance. The classifier takes a
    sample of each Gaussian in training and the mean at inference. A supervised contrastive loss compares
    samples in the batch and a memory bank; classes are triples of modality, label and presence of the label.
    Unknown labels are left out of the cross-entropies, the contrast, the memory bank and the calibration.

    Widths, depths, dropout, queue, temperature and weights are those of the authors' training script; the
    structure follows the abstract and is not verified against the PDF. Design choices: heads are shared by
    the labels of a modality; uncertainty is the mean log-variance over the latent dimensions, so that the
    weight of a modality is the inverse geometric mean of its variances; one MLP, shared by modalities and
    labels, with one output vector per label, classifies the fused and the unimodal latents; `calibration`
    matches softmax distributions as in COLD Fusion (Tellamekala et al. 2022); a weak KL term, whose weight is
    0 in the script, keeps the scale of the variances; the learning rate decays linearly instead of by
    cosine.

    Args:
        widths, labels: see `Model`.
        config: widths, depths and weights; the published values when None.

    Shapes: M modalities, L labels, P width of the latent.
    """

    weight_axes = {"looks.*": "L D", "label_vectors": "L D", "bias": "L"}

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: LdduConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or LdduConfig()
        check_modalities(widths)
        hidden, latent, num_labels = config.hidden, config.latent, len(labels)
        self.config = config
        self.max_length = dict.fromkeys(widths, config.encoder.max_length)
        self.encoders = nn.ModuleDict(
            {m: SequenceEncoder(d, hidden, config.encoder) for m, d in widths.items()}
        )
        self.looks = nn.ModuleDict({m: LabelAttention(hidden, num_labels) for m in widths})
        self.gaussians = nn.ModuleDict({m: nn.Linear(hidden, 2 * latent) for m in widths})
        self.linear1 = nn.Linear(latent, hidden)
        self.label_vectors = nn.Parameter(torch.empty(num_labels, hidden))
        self.bias = nn.Parameter(torch.zeros(num_labels))
        nn.init.kaiming_uniform_(self.label_vectors, a=5**0.5)
        self.memory_bank = MemoryBank(config.queue, latent)
        self.label_loss = LabelLoss(num_labels)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> LdduOutputs:
        modality_mask = modality_mask_of(masks, self.encoders)
        gaussians = [self.gaussians[m](self._attend(m, features[m], masks[m])[0]) for m in self.encoders]
        means, log_variances = torch.stack(gaussians, dim=1).chunk(2, dim=-1)  # (B, M, L, P)
        log_variances = log_variances.clamp(-MAX_LOG_VARIANCE, MAX_LOG_VARIANCE)
        weights = certainty(log_variances.mean(-1), modality_mask)
        logits = self.classify(fuse(means, weights))
        return LdduOutputs(
            logits.sigmoid(), weights.argmax(1), logits, modality_mask, means, log_variances, weights
        )

    def _attend(self, modality: str, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Label features (B, L, D) and attention (B, L, T) of x (B, T, d); zeros for absent modalities."""
        hidden = self.encoders[modality](x, mask)
        attendable = mask | ~mask.any(1, keepdim=True)  # hidden is 0 if absent
        attended, weights = self.looks[modality](hidden, attendable)
        return attended, weights * mask[:, None].to(weights.dtype)

    def attention(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: self._attend(m, features[m], masks[m])[1] for m in self.encoders}

    def classify(self, latents: Tensor) -> Tensor:
        """Classify latents (…, L, P), giving logits (…, L)."""
        return (F.gelu(self.linear1(latents)) * self.label_vectors).sum(-1) + self.bias

    def losses(
        self,
        outputs: LdduOutputs,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        modality_mask, means, log_variances = outputs.modality_mask, outputs.means, outputs.log_variances
        samples = draw(means, log_variances, generator)
        own = self.classify(samples)  # (B, M, L)
        targets = labels if targets is None else targets
        of_modalities = targets[:, None].expand_as(own)
        known, errors = ~of_modalities.isnan(), self.label_loss.each(own, of_modalities)
        terms = {
            "labels": self.label_loss(self.classify(fuse(samples, outputs.weights)), targets),
            "modalities": known_mean(errors, known, modality_mask),
            "contrast": self._contrast(samples, labels, modality_mask),
            "divergence": masked_mean(divergence(means, log_variances).mean(-1), modality_mask),
            "calibration": calibration(log_variances.mean(-1), errors.detach(), modality_mask, known),
        }
        return terms | {"total": weighted_sum(terms, self.config.weights.model_dump())}

    def update_after_step(self, outputs: LdduOutputs, labels: Tensor) -> None:
        """Enqueue a sample of every Gaussian."""
        samples = draw(outputs.means.detach(), outputs.log_variances.detach())
        self.memory_bank.push(*self._contrast_rows(samples, labels, outputs.modality_mask))

    def _contrast(self, samples: Tensor, labels: Tensor, modality_mask: Tensor) -> Tensor:
        rows, classes = self._contrast_rows(samples, labels, modality_mask)
        with torch.autocast(rows.device.type, enabled=False):  # sums over thousands of rows need float32
            return supcon_loss(
                rows,
                classes,
                self.memory_bank.rows,
                self.memory_bank.classes,
                temperature=self.config.temperature,
                number_of_classes=2 * samples.shape[1] * samples.shape[2],
            )

    def _contrast_rows(self, samples: Tensor, labels: Tensor, modality_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Unit latents (N, P) of samples (B, M, L, P) and their classes (N,), see `contrast_rows`."""
        return contrast_rows(samples[:, None].to(self.memory_bank.rows.dtype), labels, modality_mask)


def draw(means: Tensor, log_variances: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Draw one sample of each Gaussian by reparameterization; all shapes are equal."""
    noise = torch.randn(means.shape, generator=generator, device=means.device, dtype=means.dtype)
    return means + (log_variances / 2).exp() * noise


def certainty(log_variance: Tensor, modality_mask: Tensor) -> Tensor:
    """Compute inverse variances, normalized over the present modalities.

    Args:
        log_variance: (B, M, L).
        modality_mask: (B, M), present = True; at least one per row.

    Returns:
        (B, M, L).
    """
    return (-log_variance).masked_fill(~modality_mask[..., None], float("-inf")).softmax(1)


def fuse(latents: Tensor, weights: Tensor) -> Tensor:
    """Average latents (B, M, L, P) over modalities with weights (B, M, L), giving (B, L, P)."""
    return (latents * weights[..., None]).sum(1)


def divergence(means: Tensor, log_variances: Tensor) -> Tensor:
    """Compute the KL divergence of Gaussians (…, P) from the standard normal, per dimension (…)."""
    return (log_variances.exp() + means.square() - 1 - log_variances).mean(-1) / 2


def calibration(
    log_variance: Tensor, errors: Tensor, modality_mask: Tensor, known: Tensor | None = None
) -> Tensor:
    """Compute the divergence between uncertainty and error of the modalities.

    For each label, the KL divergence between the softmax of the errors and of the log-variances over all
    present modalities of the samples in which it is known. It is 0 if log-variance and error differ by a
    constant; as the error is −log p of the true label, variances are then proportional to 1 / p.

    Args:
        log_variance: (B, M, L).
        errors: (B, M, L), cross-entropies of each modality, without gradient.
        modality_mask: (B, M), present = True.
        known: (B, M, L), whether the label is known; None: always.

    Returns:
        Scalar, averaged over the labels that are known anywhere.
    """
    compared = modality_mask[..., None].expand_as(errors)
    compared = (compared if known is None else compared & known).flatten(0, 1)
    target, predicted = (
        x.float().flatten(0, 1).masked_fill(~compared, -1e9).log_softmax(0) for x in (errors, log_variance)
    )
    return known_mean((target.exp() * (target - predicted)).sum(0), compared.any(0))
