"""Supervised contrast of latents, in memory O(rows · tile) instead of O(rows²)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def supervised_contrast(
    latents: Tensor,
    classes: Tensor,
    queue_latents: Tensor,
    queue_classes: Tensor,
    *,
    temperature: float,
    number_of_classes: int,
    tile: int = 512,
) -> Tensor:
    """Supervised contrastive loss of a batch against itself and a queue.

    For an anchor i with positives P(i), all other rows of its class in batch and queue, the loss is
    ``−1/|P(i)| Σ_{p ∈ P(i)} log( exp(⟨i, p⟩/τ) / Σ_{a ≠ i} exp(⟨i, a⟩/τ) )``. Anchors are the batch rows that
    have a positive; their mean is returned, 0 if there are none.

    Args:
        latents: (N, P), of unit length.
        classes: (N,), in [0, number_of_classes).
        queue_latents: (K, P), of unit length, without gradient; K may be 0.
        queue_classes: (K,).
        temperature: τ.
        number_of_classes: C.
        tile: anchors whose similarities are held in memory at once.

    Returns:
        Scalar.

    Source: the paper's contrastive representation learning; Khosla et al. 2020, equation 2. The sum over
    positives is taken by class sums, the denominators tile by tile.
    """
    member = F.one_hot(classes, number_of_classes).to(latents.dtype)
    queue_member = F.one_hot(queue_classes, number_of_classes).to(latents.dtype)
    sums = member.T @ latents + queue_member.T @ queue_latents  # (C, P)
    positives = (member.sum(0) + queue_member.sum(0))[classes] - 1
    attraction = (latents * (member @ sums - latents)).sum(-1) / temperature
    repulsion: Tensor = _LogDenominator.apply(latents, queue_latents, temperature, tile)  # type: ignore[no-untyped-call]
    anchors = positives > 0
    losses = torch.where(anchors, repulsion - attraction / positives.clamp(min=1), 0)
    return losses.sum() / anchors.sum().clamp(min=1)


class _LogDenominator(torch.autograd.Function):
    """log Σ_{a ≠ i} exp(⟨i, a⟩/τ) over batch and queue, for every batch row; recomputed in the backward."""

    @staticmethod
    def forward(ctx: Any, latents: Tensor, queue: Tensor, temperature: float, tile: int) -> Tensor:
        keys = torch.cat((latents.detach(), queue))
        logs = [
            _similarities(latents, keys, temperature, start, tile).logsumexp(-1)
            for start in range(0, len(latents), tile)
        ]
        result = torch.cat(logs) if logs else latents.new_zeros(0)
        result = result.clamp(min=torch.finfo(result.dtype).min)  # a row alone has log 0
        ctx.save_for_backward(latents, keys, result)
        ctx.temperature, ctx.tile = temperature, tile
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        latents, keys, result = ctx.saved_tensors
        own = torch.zeros_like(latents)
        for start in range(0, len(latents), ctx.tile):
            rows = slice(start, start + ctx.tile)
            share = _similarities(latents, keys, ctx.temperature, start, ctx.tile)
            share = share.sub_(result[rows, None]).exp_().mul_(gradient[rows, None] / ctx.temperature)
            own[rows] += share @ keys
            own += share[:, : len(latents)].T @ latents[rows]
        return own, None, None, None


def _similarities(latents: Tensor, keys: Tensor, temperature: float, start: int, tile: int) -> Tensor:
    """Scaled similarities of a tile of anchors with all keys, −inf with themselves."""
    similarities = latents[start : start + tile].detach() @ keys.T
    similarities /= temperature
    similarities.diagonal(start).fill_(float("-inf"))
    return similarities
