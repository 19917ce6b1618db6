"""What is done otherwise on a CPU: shapes that depend on values, and products by oneDNN."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

ENOUGH = 1 << 24
"""Multiplications from which oneDNN's start-up is worth it."""


def on_host(x: Tensor) -> bool:
    """Whether shapes may depend on values: on a CPU, outside of compilation and export.

    Elsewhere reading a value to form a shape would stop the device, or break the graph in two.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b without gradient, as `torch.nn.functional.linear`.

    Args:
        x: (N, in).
        weight: (out, in).
        bias: (out,).

    Returns:
        (N, out).
    """
    return _product(x, weight, bias) if by_onednn(x, weight) else F.linear(x, weight, bias)


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` leaves these to oneDNN.

    In float32 PyTorch leaves them to MKL, which is half as fast where the processor has AVX-512 but is not
    Intel's.
    """
    return (
        on_host(x)
        and x.dtype == torch.float32
        and len(x) * weight.numel() >= ENOUGH
        and not torch.is_autocast_enabled("cpu")
        and _onednn_is_faster()
    )


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
