"""Loss terms of CARAT and their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.nn import functional as F

from carat.models.layers.masking import masked_mean
from carat.models.losses.known import known_mean, split_targets


def cross_entropy(logits: Tensor, targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean binary cross-entropy over all known labels of the valid rows.

    Args:
        logits: (…, L).
        targets: (…, L), in [0, 1], NaN where unknown.
        valid: (…) bool; None: all rows.

    Returns:
        Scalar; 0 without known labels in valid rows.
    """
    labels, known = split_targets(targets)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return known_mean(losses, known, valid)


def distance(features: Tensor, target: Tensor, modality_mask: Tensor) -> Tensor:
    """Mean squared error per modality over the samples that have it, summed over modalities.

    Args:
        features, target: (B, M, L, D).
        modality_mask: (B, M) bool, present = True.

    Returns:
        Scalar.
    """
    errors = (features - target).square().flatten(2).mean(-1)  # (B, M)
    return masked_mean(errors, modality_mask, dim=0).sum()


def weighted_sum(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ weight · term.

    Args:
        terms: scalar losses by name.
        weights: their weights, by the same names.

    Raises:
        KeyError: a term has no weight, or a weight no term.
    """
    if terms.keys() != weights.keys():
        raise KeyError(f"terms and weights differ: {sorted(terms.keys() ^ weights.keys())}")
    total = sum(weights[name] * terms[name] for name in terms)
    assert isinstance(total, Tensor)
    return total
