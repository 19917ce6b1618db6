"""CPU fast paths: data-dependent shapes and oneDNN matrix products."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor
from torch.nn import functional as F

MIN_MULTIPLICATIONS = 1 << 24
"""Minimum size of a product for oneDNN, which has a larger overhead per call."""


def on_host(x: Tensor) -> bool:
    """Whether shapes may depend on values: on a CPU, outside of compilation and export.

    Elsewhere, reading a value would synchronize with the device or break the graph.
    """
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Compute x Wᵀ + b like `torch.nn.functional.linear`, without autograd.

    Args:
        x: (N, in).
        weight: (out, in).
        bias: (out,).

    Returns:
        (N, out).
    """
    return _product(x, weight, bias) if by_onednn(x, weight) else F.linear(x, weight, bias)


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` uses oneDNN for these tensors.

    PyTorch uses MKL in float32, which is half as fast on processors with AVX-512 that are not Intel's.
    """
    return (
        on_host(x)
        and x.dtype == torch.float32
        and len(x) * weight.numel() >= MIN_MULTIPLICATIONS
        and not torch.is_autocast_enabled("cpu")
        and _onednn_is_faster()
    )


@cache
def _onednn_is_faster() -> bool:
    """Whether the processor has AVX-512 and the oneDNN operator of compiled graphs is available."""
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        return False
    try:
        return torch.equal(_product(torch.eye(2), torch.ones(3, 2)), torch.ones(2, 3))
    except (
        AttributeError,
        RuntimeError,
        TypeError,
    ):  # the operator is private and may change between versions of PyTorch
        return False


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result
