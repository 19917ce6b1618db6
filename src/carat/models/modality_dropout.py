"""Modality dropout: regularization in training, ablation at test time."""

from __future__ import annotations

from torch import Tensor

from carat.models.layers.masking import modality_mask_of


def keep_modalities(modality_mask: Tensor, uniform: Tensor, p: float) -> Tensor:
    """Drop each modality with probability p, but never the last one of a sample.

    Args:
        modality_mask: (B, M) bool, present = True.
        uniform: (B, M) random numbers in [0, 1); the present modality with the largest one is always kept.
        p: dropout probability, in [0, 1).

    Returns:
        (B, M) bool, kept = True.
    """
    of_present = uniform.masked_fill(~modality_mask, -1.0)
    largest = of_present == of_present.amax(1, keepdim=True)
    return modality_mask & ((uniform >= p) | largest)


def drop_modalities(masks: dict[str, Tensor], uniform: Tensor, p: float) -> dict[str, Tensor]:
    """Apply modality dropout to masks.

    Args:
        masks: (B, T_m) bool by modality, valid = True.
        uniform, p: see `keep_modalities`.

    Returns:
        Masks by modality, False at all time steps of dropped modalities.
    """
    kept = keep_modalities(modality_mask_of(masks), uniform, p)
    return {m: mask & kept[:, [i]] for i, (m, mask) in enumerate(masks.items())}
