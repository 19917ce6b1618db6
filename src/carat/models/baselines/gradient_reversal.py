"""Gradient reversal: layers after it learn to lower a loss, layers before it to raise it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def reverse(x: Tensor, scale: float = 1.0) -> Tensor:
    """x itself, whose gradient comes back negated and scaled (Ganin and Lempitsky 2015)."""
    reversed: Tensor = _Reversal.apply(x, scale)  # type: ignore[no-untyped-call]
    return reversed


class _Reversal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradients[0], None
