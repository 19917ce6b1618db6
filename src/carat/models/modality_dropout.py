"""Modalities taken away from samples: in training as a regulariser, at test time as a trial."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def modality_mask_of(masks: Mapping[str, Tensor]) -> Tensor:
    """Which modalities the samples have (B, M), from masks (B, T_m) by modality."""
    return torch.stack([mask.any(1) for mask in masks.values()], dim=1)


def still_there(modality_mask: Tensor, drawn: Tensor, share: float) -> Tensor:
    """Which modalities stay when each is taken away with a probability, but never a sample's last one.

    Args:
        presence: (B, M) bool, which modalities the samples have.
        drawn: (B, M), uniform in [0, 1); of what a sample has, the one with the largest number always stays.
        share: probability.

    Returns:
        (B, M) bool, a part of `presence`.
    """
    of_present = drawn.masked_fill(~modality_mask, -1.0)
    last = of_present == of_present.amax(1, keepdim=True)
    return modality_mask & ((drawn >= share) | last)


def drop_modalities(masks: dict[str, Tensor], drawn: Tensor, share: float) -> dict[str, Tensor]:
    """Masks (B, T_m) by modality in which modalities are absent by chance, see `still_there`."""
    kept = still_there(modality_mask_of(masks), drawn, share)
    return {m: mask & kept[:, [place]] for place, (m, mask) in enumerate(masks.items())}
