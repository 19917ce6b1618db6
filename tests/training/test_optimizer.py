"""BertAdam, parameter groups, gradient clipping and learning-rate schedules."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from carat.models.base import Model
from carat.training import optimizer
from carat.training.optimizer import BertAdam, clip_gradients, linear_schedule, parameter_groups


class SmallModel(Model):
    """A model with weights, biases and a LayerNorm."""

    def __init__(self) -> None:
        super().__init__({}, [])
        self.parts = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.LSTM(5, 2))

    def forward(self, features: Any, masks: Any) -> Any: ...

    def losses(self, outputs: Any, labels: Any, generator: Any = None) -> Any: ...


def test_two_steps_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    adam = BertAdam([weight], lr=0.1, weight_decay=0.01)
    expected, mean, square = weight.detach().clone(), torch.zeros(2), torch.zeros(2)
    for gradient in (torch.tensor([0.5, -3.0]), torch.tensor([-0.25, 0.0])):
        weight.grad = gradient.double()
        adam.step()
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        expected = expected - 0.1 * (mean / (square.sqrt() + 1e-6) + 0.01 * expected)
        torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=1e-6)


def test_parameters_without_gradient_are_unchanged() -> None:
    weight = nn.Parameter(torch.ones(3))
    BertAdam([weight], lr=0.1).step()
    assert weight.tolist() == [1, 1, 1]


def test_biases_and_norms_do_not_decay() -> None:
    model = SmallModel()
    decay, no_decay = parameter_groups(model.parameters(), model.no_decay_parameters(), 0.01)
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (0.01, 0.0)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in decay["params"]} == {
        "parts.0.weight",
        "parts.2.weight_ih_l0",
        "parts.2.weight_hh_l0",
    }
    assert {names[id(p)] for p in no_decay["params"]} == {
        "parts.0.bias",
        "parts.1.weight",
        "parts.1.bias",
        "parts.2.bias_ih_l0",
        "parts.2.bias_hh_l0",
    }


def test_clipping_by_hand() -> None:
    first, second, unused = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    for max_norm, max_norm_per_tensor, expected in [
        (0.0, 0.0, [[3.0, 4.0], [0.0, 12.0]]),
        (1.3, 0.0, [[0.3, 0.4], [0.0, 1.2]]),
        (0.0, 10.0, [[3.0, 4.0], [0.0, 10.0]]),
        (1.3, 0.25, [[0.15, 0.2], [0.0, 0.25]]),
        (13.0, 13.0, [[3.0, 4.0], [0.0, 12.0]]),
    ]:
        first.grad, second.grad = torch.tensor([3.0, 4.0]), torch.tensor([0.0, 12.0])
        clip_gradients([first, second, unused], max_norm, max_norm_per_tensor)
        torch.testing.assert_close(
            torch.stack((first.grad, second.grad)), torch.tensor(expected), atol=1e-5, rtol=1e-5
        )


def test_released_schedule_starts_at_zero() -> None:
    factors = [linear_schedule(20, 0.1, idle_first_step=True)(s) for s in range(21)]
    assert factors[:4] == pytest.approx([0, 0.5, 1, 17 / 18])
    assert factors[20] == 0
    assert linear_schedule(4, 1.0, idle_first_step=True)(3) == 0.75
    assert linear_schedule(4, 0.0, idle_first_step=True)(0) == 1


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_schedule_rises_to_one_and_then_falls(steps: int, warmup: float) -> None:
    factors = [linear_schedule(steps, warmup)(s) for s in range(steps)]
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) > 0
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert linear_schedule(steps, warmup)(steps) == pytest.approx(0.0, abs=1.0 if warmup == 1 else 1e-9)


def test_chunked_updates_are_identical(monkeypatch: pytest.MonkeyPatch) -> None:
    results = []
    for chunk_size in (7, 1 << 18):
        monkeypatch.setattr(optimizer, "CHUNK_SIZE", chunk_size)
        torch.manual_seed(0)
        weights = [torch.randn(5, 11, requires_grad=True), torch.randn(3, requires_grad=True)]
        adam = BertAdam(weights, lr=0.1)
        for _ in range(3):
            adam.zero_grad()
            sum((w.sin().sum() for w in weights), torch.zeros(())).backward()
            adam.step()
        results.append([w.detach().clone() for w in weights])
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
