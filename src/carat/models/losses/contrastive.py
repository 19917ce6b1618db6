"""Supervised contrastive loss of latents, in memory O(rows · tile) instead of O(rows²)."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carat.utils.device import on_host, product

ABSENT = -1
"""Class of a row that is ignored: neither an anchor nor compared with."""


def supcon_loss(
    latents: Tensor,
    classes: Tensor,
    queue_latents: Tensor,
    queue_classes: Tensor,
    *,
    temperature: float,
    number_of_classes: int,
    queue_anchors: bool = False,
    average_over_all: bool = False,
    epsilon: float = 0.0,
    tile: int | None = None,
) -> Tensor:
    """Supervised contrastive loss of a batch against itself and a queue.

    For an anchor i with positives P(i), all other rows of its class in batch and queue, the loss is
    ``−1/|P(i)| Σ_{p ∈ P(i)} log( exp(⟨i, p⟩/τ) / Σ_{a ≠ i} exp(⟨i, a⟩/τ) )``. Anchors are the batch rows that
    have a positive; their mean is returned, 0 if there are none.

    Args:
        latents: (N, P), of unit length.
        classes: (N,), in [0, number_of_classes); a row of another class has no positives, a row of class
            `ABSENT` is ignored.
        queue_latents: (K, P), without gradient; K may be 0.
        queue_classes: (K,).
        temperature: τ.
        number_of_classes: C.
        queue_anchors: whether the queue's rows are anchors too.
        average_over_all: whether anchors without a positive count as 0 in the mean; else they are left out.
        epsilon: added to |P(i)| and to the denominator's sum.
        tile: anchors whose similarities are held in memory at once; chosen by the device when None.

    Returns:
        Scalar.

    Source: the paper's contrastive representation learning; Khosla et al. 2020, equation 2. The sum over
    positives is taken by class sums, the denominators tile by tile, where value and gradient are formed
    together. Three of the switches are quirks of the released code: queue_anchors, average_over_all, epsilon.
    """
    keys = torch.cat((latents, queue_latents))
    classes = torch.cat((classes, queue_classes))
    number = len(keys) if queue_anchors else len(latents)  # anchors
    member = (classes[:, None] == torch.arange(number_of_classes, device=classes.device)).to(keys.dtype)
    positives = member[:number] @ member.sum(0) - member[:number].sum(1)
    with_positive = (positives > 0).to(keys.dtype)
    divisor = (positives + epsilon).clamp(min=1)
    valid = classes != ABSENT
    counted = (valid[:number].sum() if average_over_all else with_positive.sum()).clamp(min=1)
    own = keys[:number] * member[:number].sum(1, keepdim=True)
    attraction = (keys[:number] * (member[:number] @ (member.T @ keys) - own)).sum(-1) / temperature
    pull = (attraction / divisor * with_positive).sum() / counted
    weights = positives / divisor * with_positive / counted
    push: Tensor = _WeightedLogDenominator.apply(  # type: ignore[no-untyped-call]
        latents, queue_latents, valid, weights, temperature, epsilon, tile or _tile(keys)
    )
    return push - pull


def contrast_rows(latents: Tensor, labels: Tensor, modality_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Unit latents (N, P) and their classes (N,), `ABSENT` for those of absent modalities.

    Order: sample, level, modality, label. Class: l + L · (2 · modality + (0 if positive else 1)). Where
    shapes may depend on values, absent modalities are left out.

    Args:
        latents: (B, K, M, L, P), of K levels of features.
        labels: (B, L), 0 or 1.
        modality_mask: (B, M) bool, present = True.
    """
    rows = F.normalize(latents, dim=-1)
    batch, levels, modalities, size, _ = rows.shape
    label = torch.arange(size, device=rows.device)
    modality = torch.arange(modalities, device=rows.device)[:, None]
    classes = label + size * (2 * modality + 1 - labels[:, None].long())  # (B, M, L)
    classes = classes[:, None].expand(batch, levels, modalities, size)
    present = modality_mask[:, None, :, None].expand_as(classes)
    if on_host(rows) and not present.all():
        return rows[present], classes[present]
    return rows.flatten(0, -2), torch.where(present, classes, ABSENT).flatten()


def _tile(keys: Tensor) -> int:
    """Anchors per tile: as many as fit a CPU's caches, or 256 MB of another device's memory."""
    return 128 if keys.device.type == "cpu" else max(128, 2**26 // max(1, len(keys)))


class _WeightedLogDenominator(torch.autograd.Function):
    """Σᵢ wᵢ log(ε + Σ_{a ≠ i} exp(⟨i, a⟩/τ)), i over the first rows of batch and queue, a over all of them.

    Value and gradient come from the same tile, so that similarities are formed once and never kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        latents: Tensor,
        queue: Tensor,
        valid: Tensor,
        weights: Tensor,
        temperature: float,
        epsilon: float,
        tile: int,
    ) -> Tensor:
        rows = latents.detach()
        keys, number = torch.cat((rows, queue)), len(rows)
        bias = torch.zeros_like(keys[:, 0]).masked_fill_(~valid, float("-inf"))
        value, gradient = rows.new_zeros(()), torch.zeros_like(rows)
        for start, stop in pairwise(
            [*range(0, number, tile), *range(number, len(weights), tile), len(weights)]
        ):
            anchors, weight = keys[start:stop], weights[start:stop, None]
            shares = product(anchors / temperature, keys)
            shares.add_(bias).diagonal(start).fill_(float("-inf"))
            largest = shares.amax(1, keepdim=True).clamp(
                min=torch.finfo(rows.dtype).min
            )  # a row without others
            shares.sub_(largest).exp_()
            sums = shares.sum(1, keepdim=True)
            value += (weight * _log(sums, largest, epsilon)).sum()
            if not ctx.needs_input_grad[0]:
                continue
            denominators = sums + epsilon * (-largest).exp() if epsilon else sums
            scale = weight / denominators.clamp(min=torch.finfo(rows.dtype).tiny) / temperature
            if start < number:
                gradient[start:stop] += product(shares, keys.T) * scale
            gradient += product(shares[:, :number].T, (anchors * scale).T)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradients[0] * gradient, None, None, None, None, None, None


def _log(sums: Tensor, largest: Tensor, epsilon: float) -> Tensor:
    """log(ε + e^largest · sums); the lowest finite number for an empty sum."""
    logs = (sums.log() + largest).clamp(min=torch.finfo(sums.dtype).min)
    return torch.logaddexp(logs, torch.full_like(logs, math.log(epsilon))) if epsilon else logs
