"""Modality dropout: regularization in training, ablation at test time."""

from __future__ import annotations

from torch import Tensor

from carat.models.layers.masking import modality_mask_of


def kept_modalities(modality_mask: Tensor, drawn: Tensor, p: float) -> Tensor:
    """Drop modalities at random, but never a sample's last one.

    Args:
        modality_mask: (B, M) bool, present = True.
        drawn: (B, M), uniform in [0, 1); of a sample's modalities, the one with the largest number is kept.
        p: probability of dropping a modality.

    Returns:
        (B, M) bool, a subset of `modality_mask`.
    """
    of_present = drawn.masked_fill(~modality_mask, -1.0)
    last = of_present == of_present.amax(1, keepdim=True)
    return modality_mask & ((drawn >= p) | last)


def drop_modalities(masks: dict[str, Tensor], drawn: Tensor, p: float) -> dict[str, Tensor]:
    """Masks (B, T_m) by modality with modalities dropped, see `kept_modalities`."""
    kept = kept_modalities(modality_mask_of(masks), drawn, p)
    return {m: mask & kept[:, [place]] for place, (m, mask) in enumerate(masks.items())}
