"""Masked reductions, and which modalities a sample has. True means valid in every mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def modality_mask_of(masks: Mapping[str, Tensor], modalities: Iterable[str] | None = None) -> Tensor:
    """Which modalities the samples have.

    Args:
        masks: (B, T_m) bool by modality.
        modalities: order of the M axis; that of `masks` when None.

    Returns:
        (B, M) bool.
    """
    return torch.stack([masks[m].any(1) for m in (masks if modalities is None else modalities)], dim=1)


def masked_mean(x: Tensor, mask: Tensor | None = None, dim: int | None = None) -> Tensor:
    """Mean of the valid entries along an axis; 0 where there are none.

    Args:
        x: values.
        mask: bool, of the shape of x, or of its leading axes if `dim` is given; all are valid when None.
        dim: axis of the mask; all axes when None.

    >>> mask = torch.tensor([[True, False], [True, True]])
    >>> masked_mean(torch.tensor([[1.0, 3.0], [5.0, 7.0]]), mask, dim=1)
    tensor([1., 6.])
    """
    if mask is None:
        return x.mean() if dim is None else x.mean(dim)
    weights = mask[(..., *[None] * (x.ndim - mask.ndim))].to(x.dtype)
    if dim is None:
        return (x * weights).sum() / weights.sum().clamp(min=1)
    return (x * weights).sum(dim) / weights.sum(dim).clamp(min=1)


def masked_max(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Largest value over the present modalities, and the index of its modality.

    Args:
        x: (B, M, L).
        mask: (B, M), with at least one present modality per row.

    Returns:
        Values and indices, (B, L) each.
    """
    largest = x.masked_fill(~mask[..., None], float("-inf")).max(dim=1)
    return largest.values, largest.indices
