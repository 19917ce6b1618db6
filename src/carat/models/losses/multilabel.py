"""Multi-label cross-entropy: plain, class-balanced or asymmetric."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.models.layers.masking import masked_mean


class LabelLoss(nn.Module):
    """Cross-entropy of label logits, averaged over labels and valid rows.

    Args:
        labels: L.
        kind: "plain"; "balanced", positives and negatives of each label weighted by their effective number
            of samples (Cui et al. 2019), for which `balance` must be called; or "asymmetric" (Ridnik et al.
            2021).
        beta: of balanced.
        gamma_neg, gamma_pos, margin: of asymmetric.
    """

    weights: Tensor

    def __init__(
        self,
        labels: int,
        kind: str = "plain",
        *,
        beta: float = 0.999,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        margin: float = 0.05,
    ) -> None:
        super().__init__()
        self.kind, self.beta, self.margin = kind, beta, margin
        self.gamma_neg, self.gamma_pos = gamma_neg, gamma_pos
        self.register_buffer("weights", torch.ones(2, labels), persistent=False)

    def balance(self, labels: Tensor) -> None:
        """Set the class weights by the training labels (N, L); their mean over these labels is 1."""
        counts = torch.stack((len(labels) - labels.sum(0), labels.sum(0))).double().cpu()  # absent, present
        weights = (1 - self.beta) / (1 - self.beta ** counts.clamp(min=1))
        weights *= counts.sum() / (weights * counts).sum()
        self.weights.copy_(weights)

    def forward(self, logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
        """Scalar loss of logits (…, L) and targets (…, L), 0 or 1; rows are valid (…), all when None."""
        return masked_mean(self.each(logits, targets).mean(-1), valid)

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of every label (…, L), in the targets' precision or better."""
        logits = logits.to(torch.promote_types(logits.dtype, targets.dtype))  # bfloat16 under autocast
        if self.kind == "asymmetric":
            return self._asymmetric(logits, targets)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self.kind == "balanced":
            absent, present = self.weights
            losses = losses * torch.lerp(absent, present, targets)
        return losses

    def _asymmetric(self, logits: Tensor, targets: Tensor) -> Tensor:
        """−y (1 − p)^γ⁺ log p − (1 − y) p_m^γ⁻ log(1 − p_m), p_m = max(p − margin, 0) (equation 7)."""
        falling = F.logsigmoid(
            -logits
        )  # log(1 − p), whose powers have finite gradients; those of 1 − p do not
        shifted = (logits.sigmoid() - self.margin).clamp(min=torch.finfo(logits.dtype).tiny)
        margin = torch.full_like(logits, math.log(self.margin) if self.margin else float("-inf"))
        present = (self.gamma_pos * falling).exp() * F.logsigmoid(logits)
        absent = shifted**self.gamma_neg * torch.logaddexp(falling, margin).clamp(max=0)
        return -torch.lerp(absent, present, targets)
