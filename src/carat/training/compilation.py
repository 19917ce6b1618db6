"""Training steps as compiled graphs, where PyTorch can."""

from __future__ import annotations

import torch

from carat.models.base import Model

ROUND_TO = 8
"""Sequences of compiled trainings are padded to a multiple of so many steps, so that few shapes occur."""


def compile_method(model: Model, kind: str, accelerator: str) -> str | None:
    """Compile what a training step computes; on failure leave the method as it is.

    Args:
        method: compiled in place; its weights stay the same tensors.
        kind: "compiled", or "cuda-graphs", which also replays kernels without the host.
        accelerator: "cpu" or "gpu".

    Returns:
        Why it is trained without; None if it is compiled.
    """
    if kind == "cuda-graphs" and accelerator != "gpu":
        return "training.graph: no CUDA graphs without a GPU, trained without"
    try:
        torch.compile(_probe)(torch.ones(3, device="cuda" if accelerator == "gpu" else "cpu"))
    except Exception as error:  # a missing compiler, Triton, a GPU too old: each has an exception of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"training.graph: not possible here ({reason}), trained without"
    model.compile_step("reduce-overhead" if kind == "cuda-graphs" else "default")
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
