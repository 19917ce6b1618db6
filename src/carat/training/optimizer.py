"""BERT's Adam optimizer, parameter groups, gradient clipping and learning-rate schedule."""

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

CHUNK_SIZE = 1 << 18
"""Elements of a large tensor that are updated at a time on a CPU, so that they stay in its caches."""


class BertAdam(Optimizer):
    """Adam without bias correction and with decoupled weight decay.

    ``m ← β₁ m + (1 − β₁) g``, ``v ← β₂ v + (1 − β₂) g²``, ``w ← w − lr (m / (√v + ε) + λ w)``.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        betas: β₁ and β₂.
        eps: ε.
        weight_decay: λ.

    Source: Devlin et al. 2019, released code.
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
        """Update every parameter that has a gradient."""
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
        for tensors in zip(params, grads, means, squares, strict=True):
            p = tensors[0]
            if on_host(p) and p.numel() > CHUNK_SIZE and all(x.is_contiguous() for x in tensors):
                for chunk in zip(*(x.view(-1).split(CHUNK_SIZE) for x in tensors), strict=True):
                    _bert_adam(group, [chunk])
            else:
                small.append(tensors)
        if small:
            _bert_adam(group, small)


def _bert_adam(group: dict[str, Any], tensors: list[tuple[Tensor, ...]]) -> None:
    """One update, in place.

    Args:
        group: hyperparameters.
        tensors: (parameter, gradient, first moment, second moment) of each parameter.
    """
    params, grads, means, squares = ([x[i] for x in tensors] for i in range(4))
    beta1, beta2 = group["betas"]
    torch._foreach_lerp_(means, grads, 1 - beta1)
    torch._foreach_mul_(squares, beta2)
    torch._foreach_addcmul_(squares, grads, grads, 1 - beta2)
    scale = torch._foreach_sqrt(squares)
    torch._foreach_add_(scale, group["eps"])
    update = torch._foreach_div(means, scale)
    if group["weight_decay"]:
        torch._foreach_add_(update, params, alpha=group["weight_decay"])
    torch._foreach_add_(params, update, alpha=-group["lr"])


def parameter_groups(
    parameters: Iterable[Tensor],
    no_decay: Iterable[Tensor],
    weight_decay: float,
    learning_rates: Iterable[tuple[Tensor, float]] = (),
) -> list[dict[str, Any]]:
    """Group trainable parameters by learning rate and weight decay.

    Args:
        parameters: all parameters; frozen ones are left out.
        no_decay: parameters without weight decay.
        weight_decay: weight decay of the others.
        learning_rates: parameters with a learning rate of their own, and that rate.

    Returns:
        Two groups, with and without weight decay, for the optimizer's learning rate and for each other one in
        increasing order.
    """
    no_decay_ids, rate_of = {id(p) for p in no_decay}, {id(p): rate for p, rate in learning_rates}
    params = [p for p in parameters if p.requires_grad]
    groups: list[dict[str, Any]] = []
    for rate in (None, *sorted(set(rate_of.values()))):
        members = [p for p in params if rate_of.get(id(p)) == rate]
        lr = {} if rate is None else {"lr": rate}
        groups += [
            {"params": [p for p in members if id(p) not in no_decay_ids], "weight_decay": weight_decay} | lr,
            {"params": [p for p in members if id(p) in no_decay_ids], "weight_decay": 0.0} | lr,
        ]
    return groups


def clip_gradients(parameters: Iterable[Tensor], max_norm: float, max_norm_per_tensor: float) -> None:
    """Clip the global gradient norm, then the norm of each tensor, in place.

    Args:
        parameters: parameters, with or without gradient.
        max_norm: maximum norm of all gradients together; 0 disables it.
        max_norm_per_tensor: maximum norm of each gradient; 0 disables it.
    """
    params = [p for p in parameters if p.grad is not None]
    if max_norm:
        clip_grad_norm_(params, max_norm)
    if max_norm_per_tensor:
        for p in params:
            clip_grad_norm_(p, max_norm_per_tensor)


def linear_schedule(steps: int, warmup: float, idle_first_step: bool = False) -> Callable[[int], float]:
    """Linear warm-up from 0 to 1, then linear decay to 0.

    Args:
        steps: number of optimizer steps.
        warmup: fraction of the steps with warm-up, in [0, 1].
        idle_first_step: use the factor at progress s / steps for step s, as in the released code, so that the
            first step has learning rate 0; if False, its learning rate is above 0.

    Returns:
        The factor of the learning rate for each step s, from 0.

    >>> factor = linear_schedule(10, 0.2)
    >>> [round(factor(s), 3) for s in (0, 1, 2, 9)]
    [0.5, 1.0, 0.889, 0.111]
    >>> factor = linear_schedule(10, 0.2, idle_first_step=True)
    >>> [round(factor(s), 3) for s in (0, 1, 2, 9)]
    [0.0, 0.5, 1.0, 0.125]
    """
    if idle_first_step:
        return lambda step: _released_factor(step / steps, warmup)
    warmup_steps = max(1, round(steps * warmup)) if warmup else 0

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        return max(0.0, (steps - step) / (steps - max(warmup_steps, 1) + 1))

    return factor


def _released_factor(progress: float, warmup: float) -> float:
    if progress < warmup:
        return progress / warmup
    return max(0.0, (1 - progress) / (1 - warmup)) if warmup < 1 else 0.0


def make_optimizer(model: Model, config: TrainingConfig, steps: int) -> tuple[BertAdam, LambdaLR]:
    """Optimizer and learning-rate scheduler, which are stepped together.

    Args:
        model: provides parameters, learning rates and parameters without weight decay.
        config: learning rate, weight decay and warm-up.
        steps: number of optimizer steps of the training.
    """
    groups = parameter_groups(
        model.parameters(), model.no_decay_parameters(), config.weight_decay, model.learning_rates()
    )
    optimizer = BertAdam(groups, lr=config.learning_rate)
    factor = linear_schedule(steps, config.warmup, config.idle_first_step)
    return optimizer, LambdaLR(optimizer, factor)
