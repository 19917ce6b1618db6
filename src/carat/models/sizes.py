"""Sizes of models, known before any memory is allocated for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from carat.utils.errors import ConfigError
from carat.utils.memory import available_bytes, describe_bytes

TRAINING_COPIES = 5
"""Copies of the parameters in training: weights, gradients, two moments of the optimizer, best weights."""


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model's parameters and buffers."""

    parameters: int
    buffers: int
    stored: int
    """Bytes of the state dictionary: parameters, and buffers that are stored."""

    @property
    def in_training(self) -> int:
        """Bytes that training needs besides activations."""
        return TRAINING_COPIES * self.parameters + 2 * self.buffers

    @property
    def in_use(self) -> int:
        """Bytes that inference needs besides activations: the model, and its weights while they are read."""
        return 2 * (self.parameters + self.buffers)


class _WithoutValues(TorchFunctionMode):
    """Creates tensors without values, which takes neither memory nor random numbers."""

    RANDOM = frozenset({"normal_", "uniform_", "exponential_", "trunc_normal_", "bernoulli_"})

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.randn, torch.rand):
            return torch.empty(*args, **kwargs)
        if (
            getattr(func, "__name__", "") in self.RANDOM
            or getattr(func, "__module__", "") == nn.init.__name__
        ):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def measure(construct: Callable[[], nn.Module]) -> ModelSize:
    """Measure a model by constructing it without values.

    Args:
        construct: constructor of the model.

    Raises:
        ConfigError: a single tensor is larger than can be addressed.
        Exception: whatever the constructor raises.

    >>> measure(lambda: nn.Linear(1 << 20, 1 << 20, bias=False)).parameters == 4 << 40
    True
    """
    try:
        with torch.device("meta"), _WithoutValues():
            model = construct()
    except (RuntimeError, OverflowError, TypeError) as error:
        if "overflow" in str(error).lower():
            raise ConfigError("the model is larger than any memory; make its sizes smaller") from error
        raise
    return ModelSize(*map(_bytes, (model.parameters(), model.buffers(), model.state_dict().values())))


def _bytes(tensors: Any) -> int:
    return sum(x.numel() * x.element_size() for x in tensors)


def check_memory(needed: int, what: str, advice: str) -> None:
    """Check that memory is available.

    Args:
        needed: bytes.
        what: what needs them, at the start of the message.
        advice: what to change.

    Raises:
        ConfigError: less is available.
    """
    available = available_bytes()
    if needed > available:
        raise ConfigError(
            f"{what} needs at least {describe_bytes(needed)} of memory, but {describe_bytes(available)} are "
            f"available; {advice}"
        )
