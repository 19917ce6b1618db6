"""Adam as BERT used it, and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class BertAdam(Optimizer):
    """Adam without bias correction, weight decay added to the update.

    ``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``, ``w ← w − lr (m / (√v + ε) + decay · w)``.

    Args:
        params: parameters or groups of them; a group may set its own `weight_decay`.
        lr: learning rate.
        betas: β₁, β₂.
        eps: ε.
        weight_decay: decay.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One update of every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._update(group, [p for p in group["params"] if p.grad is not None])
        return loss

    def _update(self, group: dict[str, Any], params: list[Tensor]) -> None:
        if not params:
            return
        for p in params:
            if not self.state[p]:
                self.state[p]["mean"] = torch.zeros_like(p)
                self.state[p]["square"] = torch.zeros_like(p)
        first, second = group["betas"]
        grads = [p.grad for p in params if p.grad is not None]
        means = [self.state[p]["mean"] for p in params]
        squares = [self.state[p]["square"] for p in params]
        torch._foreach_lerp_(means, grads, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, grads, grads, 1 - second)
        scale = torch._foreach_sqrt(squares)
        torch._foreach_add_(scale, group["eps"])
        update = torch._foreach_div(means, scale)
        if group["weight_decay"]:
            torch._foreach_add_(update, params, alpha=group["weight_decay"])
        torch._foreach_add_(params, update, alpha=-group["lr"])


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameters in two groups: biases and LayerNorms do not decay."""
    spared = {
        id(p)
        for part in module.modules()
        for name, p in part.named_parameters(recurse=False)
        if isinstance(part, nn.LayerNorm) or name.startswith("bias")
    }
    params = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in params if id(p) not in spared], "weight_decay": weight_decay},
        {"params": [p for p in params if id(p) in spared], "weight_decay": 0.0},
    ]


def linear_schedule(steps: int, warmup: float) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear from 0 over the warm-up share, then linear to 0.

    Step s (from 0) is the one about to be taken; the first has a factor above 0.

    >>> factor = linear_schedule(10, 0.2)
    >>> [round(factor(s), 3) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 0.889, 0.111]
    """
    rising = max(1, round(steps * warmup)) if warmup else 0

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (steps - step) / (steps - max(rising, 1) + 1))

    return factor
