"""Adam as BERT used it, and its learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from carat.config.experiment import TrainingConfig
from carat.models.base import Model
from carat.utils.device import on_host

PIECE = 1 << 18
"""Numbers of a large tensor that are updated at a time on a CPU, so that they stay in its caches."""


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
        grads = [p.grad for p in params if p.grad is not None]
        means = [self.state[p]["mean"] for p in params]
        squares = [self.state[p]["square"] for p in params]
        small: list[tuple[Tensor, ...]] = []
        for four in zip(params, grads, means, squares, strict=True):
            if on_host(four[0]) and four[0].numel() > PIECE and all(x.is_contiguous() for x in four):
                for piece in zip(*(x.view(-1).split(PIECE) for x in four), strict=True):
                    _move(group, [piece])
            else:
                small.append(four)
        if small:
            _move(group, small)


def _move(group: dict[str, Any], fours: list[tuple[Tensor, ...]]) -> None:
    """Change weights, given with their gradients, means and squares."""
    params, grads, means, squares = ([four[i] for four in fours] for i in range(4))
    first, second = group["betas"]
    torch._foreach_lerp_(means, grads, 1 - first)
    torch._foreach_mul_(squares, second)
    torch._foreach_addcmul_(squares, grads, grads, 1 - second)
    scale = torch._foreach_sqrt(squares)
    torch._foreach_add_(scale, group["eps"])
    update = torch._foreach_div(means, scale)
    if group["weight_decay"]:
        torch._foreach_add_(update, params, alpha=group["weight_decay"])
    torch._foreach_add_(params, update, alpha=-group["lr"])


def decay_groups(
    parameters: Iterable[Tensor],
    spared: Iterable[Tensor],
    weight_decay: float,
    rates: Iterable[tuple[Tensor, float]] = (),
) -> list[dict[str, Any]]:
    """The trainable parameters in two groups: those that decay, and the spared ones that do not.

    Those with learning rates of their own follow, in two groups for each rate.
    """
    still, own = {id(p) for p in spared}, {id(p): rate for p, rate in rates}
    params = [p for p in parameters if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for rate in (None, *sorted(set(own.values()))):
        alike = [p for p in params if own.get(id(p)) == rate]
        shared = {} if rate is None else {"lr": rate}
        groups += [
            {"params": [p for p in alike if id(p) not in still], "weight_decay": weight_decay} | shared,
            {"params": [p for p in alike if id(p) in still], "weight_decay": 0.0} | shared,
        ]
    return groups


def clip_gradients(parameters: Iterable[Tensor], whole: float, each: float) -> None:
    """Scale gradients down to a norm of `whole` together, then of `each` for every one; 0 is no limit."""
    params = [p for p in parameters if p.grad is not None]
    if whole:
        clip_grad_norm_(params, whole)
    if each:
        for p in params:
            clip_grad_norm_(p, each)


def linear_schedule(steps: int, warmup: float, idle_first_step: bool = False) -> Callable[[int], float]:
    """Factor of the learning rate by step: linear from 0 over the warm-up share, then linear to 0.

    Step s (from 0) is the one about to be taken; the first has a factor above 0, unless it is to be idle, as
    in the released code, where step s has the factor of the share s / steps of the training.

    >>> factor = linear_schedule(10, 0.2)
    >>> [round(factor(s), 3) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 0.889, 0.111]
    >>> factor = linear_schedule(10, 0.2, idle_first_step=True)
    >>> [round(factor(s), 3) for s in (0, 1, 2, 9)]
    [0.0, 0.5, 1.0, 0.125]
    """
    if idle_first_step:
        return lambda step: _released_factor(step / steps, warmup)
    rising = max(1, round(steps * warmup)) if warmup else 0

    def factor(step: int) -> float:
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (steps - step) / (steps - max(rising, 1) + 1))

    return factor


def _released_factor(share: float, warmup: float) -> float:
    if share < warmup:
        return share / warmup
    return max(0.0, (1 - share) / (1 - warmup)) if warmup < 1 else 0.0


def make_optimizer(model: Model, config: TrainingConfig, steps: int) -> tuple[BertAdam, LambdaLR]:
    """Optimizer and schedule, to be stepped together, of a training of so many steps."""
    groups = decay_groups(
        model.parameters(), model.no_decay_parameters(), config.weight_decay, model.learning_rates()
    )
    optimizer = BertAdam(groups, lr=config.learning_rate)
    factor = linear_schedule(steps, config.warmup, config.idle_first_step)
    return optimizer, LambdaLR(optimizer, factor)
