"""Packed batches: valid steps one after the other, without padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from carat.utils.device import on_host

GROUP = 16
"""Samples per group that attends together, if groups save padding or memory."""
SMALL = 1 << 17
"""Pairs of steps over all samples, up to which memory is no reason for groups."""


@dataclass(frozen=True)
class LengthGroup:
    """Neighboring samples that attend together, padded to the longest among them."""

    mask: Tensor
    """(R, T) bool, valid = True."""
    places: Tensor | None
    """(N,) places of the valid steps in R · T; None: all of them."""
    rows: slice
    """Their steps among all packed rows."""
    full: bool
    """Whether every step is known to be valid."""

    def unpack(self, packed: Tensor) -> Tensor:
        """Packed rows (N, d) → (R, T, d), zeros where not valid."""
        if self.places is None:
            return packed.view(*self.mask.shape, -1)
        empty = packed.new_zeros(self.mask.numel(), packed.shape[1])
        return empty.index_copy(0, self.places, packed).view(*self.mask.shape, -1)

    def pack(self, padded: Tensor) -> Tensor:
        """(R, T, d) → the valid steps as packed rows (N, d)."""
        rows = padded.flatten(0, 1)
        if self.places is None:
            return rows
        taken: Tensor = _Take.apply(rows, self.places)  # type: ignore[no-untyped-call]
        return taken


@dataclass(frozen=True)
class PackedBatch:
    """The layout of a padded batch without its padding, the longest samples first."""

    samples: Tensor | None
    """(R,) the samples that are computed; None: all, in their order."""
    absent: Tensor | None
    """(B,) bool, samples that are computed without having a valid step; None: there are none."""
    whole: LengthGroup
    """All of them, padded to the longest."""
    groups: list[LengthGroup]
    """The same in parts of similar length."""

    def select(self, padded: Tensor) -> Tensor:
        """(B, T, d) → the samples that are computed, trimmed to the longest (R, T', d)."""
        chosen = padded if self.samples is None else padded.index_select(0, self.samples)
        return chosen[:, : self.whole.mask.shape[1]]

    def restore(self, values: Tensor, batch: int) -> Tensor:
        """Values (R, …) of the samples that were computed → (B, …), zeros for those without valid steps."""
        if self.absent is not None:
            return values.masked_fill(self.absent.view(-1, *[1] * (values.ndim - 1)), 0)
        if self.samples is None:
            return values
        return values.new_zeros(batch, *values.shape[1:]).index_copy(0, self.samples, values)


def pack_batch(mask: Tensor) -> PackedBatch:
    """Pack a batch with this mask (B, T), valid = True.

    On a CPU only valid steps are computed, and samples without any are left out. Elsewhere shapes must not
    depend on values: everything is computed, and a sample without valid steps gets its first one, so that its
    values are finite.
    """
    if not on_host(mask):
        absent = ~mask.any(1)
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        whole = LengthGroup(mask | (first & absent[:, None]), None, slice(None), full=False)
        return PackedBatch(None, absent, whole, [whole])
    lengths, order = (mask * torch.arange(1, mask.shape[1] + 1)).amax(1).sort(descending=True, stable=True)
    kept = int((lengths > 0).sum())
    moved = kept < len(mask) or bool((order != torch.arange(kept)).any())
    mask = mask[order[:kept], : int(lengths[0]) if kept else 0]
    whole = _group(mask, 0)
    return PackedBatch(order[:kept] if moved else None, None, whole, _split(whole, lengths[:kept].tolist()))


def _split(whole: LengthGroup, lengths: list[int]) -> list[LengthGroup]:
    """Groups of neighbors, the longest first; one where that is small and saves less than a fifth."""
    starts = range(0, len(lengths), GROUP)
    small = sum(lengths[:1]) * whole.mask.numel() <= SMALL
    if small and sum(len(lengths[i : i + GROUP]) * lengths[i] for i in starts) > 0.8 * whole.mask.numel():
        return [whole]
    groups: list[LengthGroup] = []
    for i in starts:
        row = groups[-1].rows.stop if groups else 0
        groups.append(_group(whole.mask[i : i + GROUP, : lengths[i]], row))
    return groups


def _group(mask: Tensor, start: int) -> LengthGroup:
    places = mask.flatten().nonzero()[:, 0]
    full = len(places) == mask.numel()
    return LengthGroup(mask, None if full else places, slice(start, start + len(places)), full)


class _Take(torch.autograd.Function):
    """Rows at distinct places; the built-in gradient accumulates row by row, slower than a product."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, places: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.number = len(rows)
        return rows.index_select(0, places)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (places,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.new_zeros(ctx.number, gradient.shape[1]).index_copy_(0, places, gradient), None
