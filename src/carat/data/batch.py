"""Padded batches with validity masks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass
class Batch:
    """Padded sequences by modality. In samples that lack a modality, all its steps are masked."""

    features: dict[str, Tensor]
    """(B, T_m, d_m) float32, or int64 for tokens; zeros where masked."""
    masks: dict[str, Tensor]
    """(B, T_m) bool, valid = True."""
    labels: Tensor
    """(B, L) float32, 0 or 1, NaN where unknown."""
    rows: Tensor
    """(B,) int64, store rows."""
    total: int = 0
    """Batch size over all processes in distributed training; 0 in a single process."""
    targets: Tensor | None = None
    """(B, L) float32 in [0, 1], NaN where unknown: targets other than the labels, if training has them."""

    @property
    def modality_mask(self) -> Tensor:
        """(B, M) bool, True where a sample has the modality."""
        return torch.stack([mask.any(1) for mask in self.masks.values()], dim=1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Copy the batch to a device."""
        return self._map(lambda x: x.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Copy the batch to pinned memory."""
        return self._map(lambda x: x.pin_memory())

    def select(self, samples: Tensor) -> Batch:
        """Select samples by index or mask (B,)."""
        return self._map(lambda x: x[samples])

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        """The batch with a function applied to all its tensors."""
        return Batch(
            {m: function(x) for m, x in self.features.items()},
            {m: function(mask) for m, mask in self.masks.items()},
            function(self.labels),
            function(self.rows),
            self.total,
            None if self.targets is None else function(self.targets),
        )


def pad(
    sequences: Sequence[NDArray[Any]],
    width: int,
    *,
    pad_to: int = 0,
    min_length: int = 1,
    max_length: int = 0,
    round_to: int = 1,
) -> tuple[Tensor, Tensor]:
    """Pad sequences with zeros to a common length T.

    Args:
        sequences: B arrays (T_i, d). Token IDs stay integers.
        width: d.
        pad_to: step up to which the padding of non-empty sequences counts as valid.
        min_length: lower bound of T.
        max_length: T is not rounded up beyond this length.
        round_to: round T up to a multiple of this number.

    Returns:
        Sequences (B, T, d), float32 or int64, and their mask (B, T), valid = True.
    """
    length = max(min_length, pad_to, *map(len, sequences)) if sequences else min_length
    length = max(length, min(max_length, -(-length // round_to) * round_to))
    is_tokens = any(x.dtype.kind == "i" for x in sequences)
    padded = np.zeros((len(sequences), length, width), dtype=np.int64 if is_tokens else np.float32)
    mask = np.zeros((len(sequences), length), dtype=bool)
    for i, x in enumerate(sequences):
        padded[i, : len(x)] = x
        mask[i, : max(len(x), pad_to) if len(x) else 0] = True
    return torch.from_numpy(padded), torch.from_numpy(mask)


def collate(
    samples: Sequence[Mapping[str, NDArray[Any]]],
    widths: Mapping[str, int],
    pad_to: Mapping[str, int] | None = None,
) -> Batch:
    """Make a batch without labels from feature arrays.

    Args:
        samples: B mappings from modality to features (T, d); missing modalities are omitted.
        widths: feature width d by modality, in the order of the M axis.
        pad_to: see `pad`, by modality.

    Returns:
        Batch with labels of shape (B, 0) and rows 0 to B - 1.
    """
    pad_to = pad_to or {}
    features, masks = {}, {}
    for m, width in widths.items():
        empty = np.zeros((0, width), dtype=np.float32)
        features[m], masks[m] = pad(
            [sample.get(m, empty) for sample in samples], width, pad_to=pad_to.get(m, 0)
        )
    return Batch(features, masks, torch.zeros(len(samples), 0), torch.arange(len(samples)))


def mask_modalities(batch: Batch, modality_mask: NDArray[np.bool_]) -> Batch:
    """Mask modalities, and remove the samples that have none left.

    Args:
        batch: B padded samples.
        modality_mask: (N, M), one row per store row, modalities in the order of the batch; False masks.

    Returns:
        Batch of at most B samples.
    """
    selected = torch.from_numpy(modality_mask[batch.rows.cpu().numpy()]).to(batch.rows.device)
    masks = {m: mask & selected[:, [i]] for i, (m, mask) in enumerate(batch.masks.items())}
    remaining = torch.stack([mask.any(1) for mask in masks.values()], dim=1).any(1)
    return replace(batch, masks=masks, total=0).select(remaining)
