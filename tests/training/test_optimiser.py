from __future__ import annotations

import pytest
import torch
from torch import nn

from carat.training.optimiser import BertAdam, decay_groups, linear_schedule


def test_two_steps_by_hand() -> None:
    weight = nn.Parameter(torch.tensor([2.0, -1.0], dtype=torch.float64))
    optimiser = BertAdam([weight], lr=0.1, weight_decay=0.01)
    expected, mean, square = weight.detach().clone(), torch.zeros(2), torch.zeros(2)
    for gradient in (torch.tensor([0.5, -3.0]), torch.tensor([-0.25, 0.0])):
        weight.grad = gradient.double()
        optimiser.step()
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        expected = expected - 0.1 * (mean / (square.sqrt() + 1e-6) + 0.01 * expected)
        torch.testing.assert_close(weight.detach(), expected, atol=1e-6, rtol=1e-6)


def test_parameters_without_gradient_stay() -> None:
    weight = nn.Parameter(torch.ones(3))
    BertAdam([weight], lr=0.1).step()
    assert weight.tolist() == [1, 1, 1]


def test_biases_and_norms_do_not_decay() -> None:
    module = nn.Sequential(nn.Linear(3, 5), nn.LayerNorm(5), nn.LSTM(5, 2))
    decayed, spared = decay_groups(module, 0.01)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.01, 0.0)
    names = {id(p): name for name, p in module.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"0.weight", "2.weight_ih_l0", "2.weight_hh_l0"}
    assert {names[id(p)] for p in spared["params"]} == {
        "0.bias",
        "1.weight",
        "1.bias",
        "2.bias_ih_l0",
        "2.bias_hh_l0",
    }


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_schedule_rises_once_to_one_and_falls(steps: int, warmup: float) -> None:
    factors = [linear_schedule(steps, warmup)(s) for s in range(steps)]
    assert max(factors) == pytest.approx(1.0)
    assert min(factors) > 0
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    assert linear_schedule(steps, warmup)(steps) == pytest.approx(0.0, abs=1.0 if warmup == 1 else 1e-9)
