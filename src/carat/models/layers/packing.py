"""Packing of padded batches: valid time steps only, samples grouped by length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carat.utils.device import on_host

GROUP_SIZE = 16
"""Samples per group."""
MAX_PAIRS = 1 << 17
"""Query–key pairs of a batch, R · T², up to which attention needs no groups to save memory."""


@dataclass(frozen=True)
class LengthGroup:
    """Adjacent samples of similar length that attend in one call, padded to the longest of them."""

    mask: Tensor
    """(R, T) bool, valid = True."""
    indices: Tensor | None
    """(N,) indices of the valid steps among the R · T steps; None: all steps are packed."""
    rows: slice
    """The group's rows among all packed rows."""
    full: bool
    """Whether every step is known to be valid."""

    def unpack(self, packed: Tensor) -> Tensor:
        """Packed rows (N, d) → (R, T, d), zeros at padding."""
        if self.indices is None:
            return packed.view(*self.mask.shape, -1)
        padded = packed.new_zeros(self.mask.numel(), packed.shape[1])
        return padded.index_copy(0, self.indices, packed).view(*self.mask.shape, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """(R, T, d) → packed rows (N, d) of the valid steps."""
        rows = padded.flatten(0, 1)
        if self.indices is None:
            return rows
        packed: Tensor = _IndexSelect.apply(rows, self.indices)  # type: ignore[no-untyped-call]
        return packed


@dataclass(frozen=True)
class PackedBatch:
    """A padded batch without its padding: the valid steps of all samples, longest samples first."""

    samples: Tensor | None
    """(R,) indices of the selected samples in the batch; None: all samples, in order."""
    absent: Tensor | None
    """(B,) bool, selected samples without any valid step; None: there are none."""
    whole: LengthGroup
    """The selected samples as a single group, padded to the longest."""
    groups: list[LengthGroup]
    """The selected samples in groups of similar length."""

    def select(self, padded: Tensor) -> Tensor:
        """(B, T, d) → the selected samples, trimmed to the longest (R, T', d)."""
        selected = padded if self.samples is None else padded.index_select(0, self.samples)
        return selected[:, : self.whole.mask.shape[1]]

    def restore(self, values: Tensor, batch: int) -> Tensor:
        """Values (R, …) of the selected samples → (B, …), zeros for samples without valid steps."""
        if self.absent is not None:
            return values.masked_fill(self.absent.view(-1, *[1] * (values.ndim - 1)), 0)
        if self.samples is None:
            return values
        return values.new_zeros(batch, *values.shape[1:]).index_copy(0, self.samples, values)


def pack_batch(mask: Tensor) -> PackedBatch:
    """Pack a batch.

    On a CPU, samples without valid steps are left out. On other devices shapes must not depend on values:
    all steps are packed, and the first step of a sample without valid steps counts as valid, so that its
    attention stays finite.

    Args:
        mask: (B, T) bool, valid = True.
    """
    if not on_host(mask):
        absent = ~mask.any(1)
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        whole = LengthGroup(mask | (first & absent[:, None]), None, slice(None), full=False)
        return PackedBatch(None, absent, whole, [whole])
    lengths, order = (mask * torch.arange(1, mask.shape[1] + 1)).amax(1).sort(descending=True, stable=True)
    present = int((lengths > 0).sum())
    reordered = present < len(mask) or bool((order != torch.arange(present)).any())
    mask = mask[order[:present], : int(lengths[0]) if present else 0]
    whole = _make_group(mask, 0)
    groups = _split(whole, lengths[:present].tolist())
    return PackedBatch(order[:present] if reordered else None, None, whole, groups)


def _split(whole: LengthGroup, lengths: list[int]) -> list[LengthGroup]:
    """Split into groups of adjacent samples, unless the batch is small and that saves less than a fifth.

    Args:
        whole: samples in order of decreasing length.
        lengths: their R lengths.
    """
    starts = range(0, len(lengths), GROUP_SIZE)
    steps = whole.mask.numel()
    small = sum(lengths[:1]) * steps <= MAX_PAIRS
    if small and sum(len(lengths[i : i + GROUP_SIZE]) * lengths[i] for i in starts) > 0.8 * steps:
        return [whole]
    groups: list[LengthGroup] = []
    for i in starts:
        row = groups[-1].rows.stop if groups else 0
        groups.append(_make_group(whole.mask[i : i + GROUP_SIZE, : lengths[i]], row))
    return groups


def _make_group(mask: Tensor, start: int) -> LengthGroup:
    """The group of a mask (R, T) whose packed rows begin at `start`."""
    indices = mask.flatten().nonzero()[:, 0]
    full = len(indices) == mask.numel()
    return LengthGroup(mask, None if full else indices, slice(start, start + len(indices)), full)


class _IndexSelect(torch.autograd.Function):
    """`index_select` for unique indices, whose backward pass copies rows instead of accumulating them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.number = len(rows)
        return rows.index_select(0, indices)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (indices,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.new_zeros(ctx.number, gradient.shape[1]).index_copy_(0, indices, gradient), None
