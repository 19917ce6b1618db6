"""Supervised contrast of latents, in memory O(rows · tile) instead of O(rows²)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def supervised_contrast(
    latents: Tensor,
    classes: Tensor,
    queue_latents: Tensor,
    queue_classes: Tensor,
    *,
    temperature: float,
    number_of_classes: int,
    queue_anchors: bool = False,
    count_lonely: bool = False,
    epsilon: float = 0.0,
    tile: int = 512,
) -> Tensor:
    """Supervised contrastive loss of a batch against itself and a queue.

    For an anchor i with positives P(i), all other rows of its class in batch and queue, the loss is
    ``−1/|P(i)| Σ_{p ∈ P(i)} log( exp(⟨i, p⟩/τ) / Σ_{a ≠ i} exp(⟨i, a⟩/τ) )``. Anchors are the batch rows that
    have a positive; their mean is returned, 0 if there are none.

    Args:
        latents: (N, P), of unit length.
        classes: (N,), in [0, number_of_classes); a row of another class has no positives.
        queue_latents: (K, P), without gradient; K may be 0.
        queue_classes: (K,).
        temperature: τ.
        number_of_classes: C.
        queue_anchors: the queue's rows are anchors too.
        count_lonely: anchors without a positive count as 0 in the mean; else they are left out of it.
        epsilon: added to |P(i)| and to the denominator's sum.
        tile: anchors whose similarities are held in memory at once.

    Returns:
        Scalar.

    Source: the paper's contrastive representation learning; Khosla et al. 2020, equation 2. The sum over
    positives is taken by class sums, the denominators tile by tile. The last three switches are quirks of the
    released code.
    """
    if queue_anchors:
        latents, classes = torch.cat((latents, queue_latents)), torch.cat((classes, queue_classes))
        queue_latents, queue_classes = latents[:0].detach(), classes[:0]
    names = torch.arange(number_of_classes, device=classes.device)
    member = (classes[:, None] == names).to(latents.dtype)
    queue_member = (queue_classes[:, None] == names).to(latents.dtype)
    sums = member.T @ latents + queue_member.T @ queue_latents  # (C, P)
    positives = member @ (member.sum(0) + queue_member.sum(0)) - member.sum(1)
    own = latents * member.sum(1, keepdim=True)
    attraction = (latents * (member @ sums - own)).sum(-1) / temperature
    repulsion: Tensor = _LogDenominator.apply(latents, queue_latents, temperature, tile)  # type: ignore[no-untyped-call]
    if epsilon:
        repulsion = torch.logaddexp(repulsion, repulsion.new_tensor(epsilon).log())
    anchors = positives > 0
    number = (positives + epsilon).clamp(min=1)
    losses = torch.where(anchors, (positives * repulsion - attraction) / number, 0)
    counted = len(losses) if count_lonely else anchors.sum()
    return losses.sum() / torch.as_tensor(counted).clamp(min=1)


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
