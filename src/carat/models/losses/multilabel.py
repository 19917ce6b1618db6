"""Binary cross-entropy for multi-label classification: plain, class-balanced or asymmetric."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.models.losses.known import known_mean, split_targets


class LabelLoss(nn.Module):
    """Binary cross-entropy of label logits, averaged over the known labels of valid rows.

    Args:
        labels: L.
        kind: "plain"; "balanced", with positives and negatives of each label weighted by the inverse of their
            effective number of samples, set by `balance`; or "asymmetric".
        beta: β of the effective number, in [0, 1); only for "balanced".
        gamma_neg, gamma_pos: focusing exponents for negatives and positives, ≥ 0; only for "asymmetric".
        margin: probability margin of negatives, in [0, 1); only for "asymmetric".

    Source: Cui et al. 2019 (class-balanced loss); Ridnik et al. 2021 (asymmetric loss).
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
        """Set the class weights from the training labels (N, L), over whose known ones their mean is 1."""
        labels, known = split_targets(labels)
        positives = labels.sum(0)
        counts = torch.stack((known.sum(0) - positives, positives)).double().cpu()  # (2, L)
        weights = (1 - self.beta) / (1 - self.beta ** counts.clamp(min=1))
        weights *= counts.sum() / (weights * counts).sum()
        self.weights.copy_(weights)

    def forward(self, logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
        """Mean loss over the known labels of the valid rows, see `known_mean`.

        Args:
            logits: (…, L).
            targets: (…, L), in [0, 1], NaN where unknown.
            valid: (…) bool; None: all rows.
        """
        labels, known = split_targets(targets)
        return known_mean(self._of_labels(logits, labels), known, valid)

    def each(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Unreduced losses (…, L), at least in the precision of the targets; 0 where they are unknown."""
        labels, known = split_targets(targets)
        return self._of_labels(logits, labels).masked_fill(~known, 0)

    def _of_labels(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Unreduced losses (…, L) of targets in [0, 1]."""
        logits = logits.to(torch.promote_types(logits.dtype, targets.dtype))  # bfloat16 under autocast
        if self.kind == "asymmetric":
            return self._asymmetric(logits, targets)
        losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        if self.kind == "balanced":
            negative, positive = self.weights
            losses = losses * torch.lerp(negative, positive, targets)
        return losses

    def _asymmetric(self, logits: Tensor, targets: Tensor) -> Tensor:
        """−y (1 − p)^γ⁺ log p − (1 − y) p_m^γ⁻ log(1 − p_m), p_m = max(p − margin, 0): equation 7."""
        log_not_p = F.logsigmoid(-logits)  # log(1 − p); the powers of 1 − p itself have infinite gradients
        shifted = (logits.sigmoid() - self.margin).clamp(min=torch.finfo(logits.dtype).tiny)  # p_m
        log_margin = torch.full_like(logits, math.log(self.margin) if self.margin else float("-inf"))
        positive = (self.gamma_pos * log_not_p).exp() * F.logsigmoid(logits)
        negative = shifted**self.gamma_neg * torch.logaddexp(log_not_p, log_margin).clamp(max=0)
        return -torch.lerp(negative, positive, targets)
