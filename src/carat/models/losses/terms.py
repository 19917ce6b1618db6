"""The terms of CARAT's objective and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over all labels of the valid rows.

    Args:
        logits: (…, L).
        targets: (…, L), 0 or 1.
        valid: (…) bool; all rows when None.
    """
    losses = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(-1)
    return mean_of_valid(losses, valid)


def mean_of_valid(losses: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean of losses (…) over the valid (…), all when None; 0 if there are none."""
    if valid is None:
        return losses.mean()
    return (losses * valid).sum() / valid.sum().clamp(min=1)


def distance(features: Tensor, target: Tensor, modality_mask: Tensor) -> Tensor:
    """Mean squared error within each modality over the samples that have it, summed over modalities.

    Args:
        features, target: (B, M, L, D).
        presence: (B, M).
    """
    errors = (features - target).square().flatten(2).mean(-1)  # (B, M)
    by_modality = (errors * modality_mask).sum(0) / modality_mask.sum(0).clamp(min=1)
    return by_modality.sum()


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ weight · term; terms and weights must have the same names.

    Raises:
        KeyError: a term without weight or a weight without term.
    """
    if terms.keys() != weights.keys():
        raise KeyError(f"terms and weights differ: {sorted(terms.keys() ^ weights.keys())}")
    total = sum(weights[name] * terms[name] for name in terms)
    assert isinstance(total, Tensor)
    return total
