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
    anchors = (positives > 0).to(latents.dtype)
    number = (positives + epsilon).clamp(min=1)
    counted = torch.as_tensor(len(anchors) if count_lonely else anchors.sum()).clamp(min=1)
    pull = (attraction / number * anchors).sum() / counted
    weights = positives / number * anchors / counted
    push: Tensor = _WeightedLogDenominator.apply(  # type: ignore[no-untyped-call]
        latents, queue_latents, weights, temperature, epsilon, tile
    )
    return push - pull


class _WeightedLogDenominator(torch.autograd.Function):
    """Σᵢ wᵢ log(ε + Σ_{a ≠ i} exp(⟨i, a⟩/τ)), i over the batch, a over batch and queue.

    Value and gradient come from the same tile, so that similarities are formed once and never kept.
    """

    @staticmethod
    def forward(
        ctx: Any,
        latents: Tensor,
        queue: Tensor,
        weights: Tensor,
        temperature: float,
        epsilon: float,
        tile: int,
    ) -> Tensor:
        rows = latents.detach()
        keys = torch.cat((rows, queue))
        value, gradient = rows.new_zeros(()), torch.zeros_like(rows)
        for start in range(0, len(rows), tile):
            own = slice(start, start + tile)
            shares = (rows[own] / temperature) @ keys.T
            shares.diagonal(start).fill_(float("-inf"))
            largest = shares.amax(1, keepdim=True).clamp(min=torch.finfo(rows.dtype).min)  # a row alone
            shares.sub_(largest).exp_()
            sums = shares.sum(1, keepdim=True)
            value += weights[own] @ _log(sums, largest, epsilon)[:, 0]
            if not ctx.needs_input_grad[0]:
                continue
            denominators = sums + epsilon * (-largest).exp() if epsilon else sums
            shares.mul_(
                weights[own, None] / denominators.clamp(min=torch.finfo(rows.dtype).tiny) / temperature
            )
            gradient[own] += shares @ keys
            gradient += shares[:, : len(rows)].T @ rows[own]
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradients[0] * gradient, None, None, None, None, None


def _log(sums: Tensor, largest: Tensor, epsilon: float) -> Tensor:
    """log(ε + e^largest · sums); the lowest finite number where there is nothing to sum."""
    logs = (sums.log() + largest).clamp(min=torch.finfo(sums.dtype).min)
    return torch.logaddexp(logs, logs.new_tensor(epsilon).log()) if epsilon else logs
