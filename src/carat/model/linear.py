"""Linear layers on a CPU: by oneDNN where PyTorch would take a slower library."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from carat.model.layout import on_host

ENOUGH = 1 << 24
"""Multiplications from which oneDNN's start-up is worth it."""


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x Wᵀ + b, as `torch.nn.functional.linear`.

    In float32 PyTorch leaves this product to MKL, which is half as fast as oneDNN where the processor has
    AVX-512 but is not Intel's.

    Args:
        x: (N, in).
        weight: (out, in).
        bias: (out,).

    Returns:
        (N, out).
    """
    if not on_host(x) or len(x) * weight.numel() < ENOUGH or not _by_onednn(x):
        return F.linear(x, weight, bias)
    out: Tensor = _Linear.apply(x, weight, bias)  # type: ignore[no-untyped-call]
    return out


def _by_onednn(x: Tensor) -> bool:
    return x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") and _onednn_is_faster()


@cache
def _onednn_is_faster() -> bool:
    """Whether oneDNN can be called, in the way that compiled graphs call it, on a processor with AVX-512."""
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    try:
        return torch.equal(_product(torch.eye(2), torch.ones(3, 2)), torch.ones(2, 3))
    except (AttributeError, RuntimeError, TypeError):  # another PyTorch may name it otherwise
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous()
        of_x = _product(gradient, weight.t()) if ctx.needs_input_grad[0] else None
        return of_x, _product(gradient.t(), x.t()), gradient.sum(0)
