"""Supervised contrastive loss in O(rows · tile) instead of O(rows²) memory."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carat.models.losses.known import split_targets
from carat.utils.device import on_host, product

ABSENT = -1
"""Class of a row without modality or label, which is neither an anchor nor in any denominator."""


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
    ``−1/|P(i)| Σ_{p ∈ P(i)} log( exp(⟨i, p⟩/τ) / Σ_{a ≠ i} exp(⟨i, a⟩/τ) )``. It is averaged over the batch
    rows that have a positive.

    The sum over positives is computed from class sums, the denominators tile by tile, with value and gradient
    in the same pass. `queue_anchors`, `average_over_all` and `epsilon` reproduce the released code.

    Args:
        latents: (N, P), of unit length.
        classes: (N,), in [0, number_of_classes); rows of any other class have no positives, rows of class
            `ABSENT` are ignored.
        queue_latents: (K, P), without gradient; K may be 0.
        queue_classes: (K,).
        temperature: τ > 0.
        number_of_classes: C.
        queue_anchors: use the rows of the queue as anchors, too.
        average_over_all: count anchors without positives as 0 in the mean instead of leaving them out.
        epsilon: added to |P(i)| and to the denominator.
        tile: number of anchors whose similarities are held in memory at once; None chooses by device.

    Returns:
        Scalar; 0 if no anchor has a positive.

    Source: Khosla et al. 2020, equation 2; Peng et al. 2024, contrastive representation learning.
    """
    keys = torch.cat((latents, queue_latents))
    classes = torch.cat((classes, queue_classes))
    anchors = len(keys) if queue_anchors else len(latents)
    one_hot = (classes[:, None] == torch.arange(number_of_classes, device=classes.device)).to(keys.dtype)
    positives = one_hot[:anchors] @ one_hot.sum(0) - one_hot[:anchors].sum(1)  # |P(i)|
    has_positive = (positives > 0).to(keys.dtype)
    divisor = (positives + epsilon).clamp(min=1)
    present = classes != ABSENT
    count = (present[:anchors].sum() if average_over_all else has_positive.sum()).clamp(min=1)
    itself = keys[:anchors] * one_hot[:anchors].sum(1, keepdim=True)
    similarity = (keys[:anchors] * (one_hot[:anchors] @ (one_hot.T @ keys) - itself)).sum(-1) / temperature
    numerator = (similarity / divisor * has_positive).sum() / count
    weights = positives / divisor * has_positive / count
    denominator: Tensor = _WeightedLogDenominator.apply(  # type: ignore[no-untyped-call]
        latents, queue_latents, present, weights, temperature, epsilon, tile or _default_tile(keys)
    )
    return denominator - numerator


def contrast_rows(latents: Tensor, labels: Tensor, modality_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Flatten latents to the rows of `supcon_loss`.

    Rows are ordered by sample, level, modality and label. The class of a row is
    ``label + L · (2 · modality + (0 if positive else 1))``.

    Args:
        latents: (B, K, M, L, P), K feature levels.
        labels: (B, L), 0 or 1, NaN where unknown.
        modality_mask: (B, M) bool, present = True.

    Returns:
        Latents (N, P) of unit length and their classes (N,). Rows of absent modalities and of unknown labels
        are left out on a CPU and have class `ABSENT` on other devices.
    """
    labels, known = split_targets(labels)
    rows = F.normalize(latents, dim=-1)
    batch, levels, modalities, size, _ = rows.shape
    label = torch.arange(size, device=rows.device)
    modality = torch.arange(modalities, device=rows.device)[:, None]
    classes = label + size * (2 * modality + 1 - labels[:, None].long())  # (B, M, L)
    classes = classes[:, None].expand(batch, levels, modalities, size)
    present = (modality_mask[:, :, None] & known[:, None])[:, None].expand_as(classes)
    if on_host(rows) and not present.all():
        return rows[present], classes[present]
    return rows.flatten(0, -2), torch.where(present, classes, ABSENT).flatten()


def _default_tile(keys: Tensor) -> int:
    """A tile that fits the caches of a CPU, or 256 MB of another device's memory."""
    return 128 if keys.device.type == "cpu" else max(128, 2**26 // max(1, len(keys)))


class _WeightedLogDenominator(torch.autograd.Function):
    """Σᵢ wᵢ log(ε + Σ_{a ≠ i} exp(⟨i, a⟩/τ)); anchors i are the first rows of batch and queue, a all of them.

    Value and gradient are computed from the same tile, so that similarities are computed once and not stored.
    """

    @staticmethod
    def forward(
        ctx: Any,
        latents: Tensor,
        queue: Tensor,
        present: Tensor,
        weights: Tensor,
        temperature: float,
        epsilon: float,
        tile: int,
    ) -> Tensor:
        rows = latents.detach()
        keys, batch, end = torch.cat((rows, queue)), len(rows), len(weights)
        bias = torch.zeros_like(keys[:, 0]).masked_fill_(~present, float("-inf"))
        value, gradient = rows.new_zeros(()), torch.zeros_like(rows)
        for start, stop in pairwise([*range(0, batch, tile), *range(batch, end, tile), end]):
            anchors, weight = keys[start:stop], weights[start:stop, None]
            scores = product(anchors / temperature, keys)
            scores.add_(bias).diagonal(start).fill_(float("-inf"))
            maximum = scores.amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).min)  # if all are -inf
            exps = scores.sub_(maximum).exp_()
            sums = exps.sum(1, keepdim=True)
            value += (weight * _log_denominator(sums, maximum, epsilon)).sum()
            if not ctx.needs_input_grad[0]:
                continue
            denominators = sums + epsilon * (-maximum).exp() if epsilon else sums
            scale = weight / denominators.clamp(min=torch.finfo(rows.dtype).tiny) / temperature
            if start < batch:
                gradient[start:stop] += product(exps, keys.T) * scale
            gradient += product(exps[:, :batch].T, (anchors * scale).T)
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradients[0] * gradient, None, None, None, None, None, None


def _log_denominator(sums: Tensor, maximum: Tensor, epsilon: float) -> Tensor:
    """log(ε + e^maximum · sums); the lowest finite number for an empty sum without ε."""
    logs = (sums.log() + maximum).clamp(min=torch.finfo(sums.dtype).min)
    return torch.logaddexp(logs, torch.full_like(logs, math.log(epsilon))) if epsilon else logs
