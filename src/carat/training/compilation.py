"""Compilation of training steps with `torch.compile`."""

from __future__ import annotations

import torch

from carat.models.base import Model

ROUND_TO = 8
"""Sequences are padded to a multiple of this length when steps are compiled, which limits recompilation."""


def compile_model(model: Model, kind: str, accelerator: str) -> str | None:
    """Compile the training step of a model, or leave the model unchanged if that is not possible.

    Args:
        model: compiled in place; its parameters stay the same tensors.
        kind: "compiled", or "cuda-graphs" to also replay kernels as CUDA graphs.
        accelerator: "cpu" or "gpu".

    Returns:
        Why the model is not compiled; None if it is.
    """
    if kind == "cuda-graphs" and accelerator != "gpu":
        return "training.graph: CUDA graphs need a GPU; trained without compilation"
    try:
        torch.compile(_probe)(torch.ones(3, device="cuda" if accelerator == "gpu" else "cpu"))
    except Exception as error:  # no compiler, no Triton, GPU too old: every cause has its own exception type
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"training.graph: torch.compile failed ({reason}); trained without compilation"
    model.compile_step("reduce-overhead" if kind == "cuda-graphs" else "default")
    return None


def _probe(x: torch.Tensor) -> torch.Tensor:
    return x.sin() + 1
