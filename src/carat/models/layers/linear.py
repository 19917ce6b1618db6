"""Linear layer with the fast CPU matrix products of `carat.utils.device`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carat.utils.device import by_onednn, product


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x Wᵀ + b, like `torch.nn.functional.linear`.

    Args:
        x: (N, in).
        weight: (out, in).
        bias: (out,).

    Returns:
        (N, out).
    """
    if not by_onednn(x, weight):
        return F.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        grad_x = product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        grad_weight = product(gradient.t(), x.t()) if ctx.needs_input_grad[1] else None
        return grad_x, grad_weight, gradient.sum(0) if ctx.needs_input_grad[2] else None
