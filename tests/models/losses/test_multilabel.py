"""Multi-label losses against PyTorch, against their definitions and at extreme logits."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.models.losses.multilabel import LabelLoss

KINDS = ("plain", "balanced", "asymmetric")
L = 3
# rare, balanced and frequent label
TRAINING = (torch.arange(200)[:, None] < torch.tensor([7, 100, 193])).float()


def make_loss(kind: str, **changes: float) -> LabelLoss:
    loss = LabelLoss(L, kind, **changes)
    loss.balance(TRAINING)
    return loss


def rows(number: int = 17) -> tuple[Tensor, Tensor]:
    return 3 * torch.randn(number, 2, L), torch.randint(0, 2, (number, 2, L)).float()


def test_plain_equals_pytorch() -> None:
    logits, targets = rows()
    expected = F.binary_cross_entropy_with_logits(logits, targets)
    torch.testing.assert_close(make_loss("plain")(logits, targets), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_invalid_rows_are_ignored(kind: str) -> None:
    logits, targets = rows()
    valid = torch.rand(17, 2) < 0.6
    expected = make_loss(kind)(logits[valid], targets[valid])
    loss = make_loss(kind)(logits.where(valid[..., None], 50.0), targets, valid)
    torch.testing.assert_close(loss, expected)
    assert make_loss(kind)(logits, targets, torch.zeros_like(valid)) == 0


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.999999])
def test_balanced_weights_have_mean_one_over_the_training_labels(beta: float) -> None:
    negative, positive = make_loss("balanced", beta=beta).weights
    assert torch.lerp(negative, positive, TRAINING).mean().item() == pytest.approx(1, rel=1e-5)


def test_classes_are_balanced_as_beta_approaches_one() -> None:
    counts = torch.stack((200 - TRAINING.sum(0), TRAINING.sum(0)))
    loss = make_loss("balanced", beta=1 - 1e-9)
    torch.testing.assert_close(loss.weights * counts, torch.full((2, L), 100.0))
    logits = torch.zeros(200, L)  # every loss is log 2, so that gradients show the class weights
    gradient = torch.autograd.functional.jacobian(lambda x: loss(x, TRAINING), logits)
    for target in (0, 1):
        per_label = (gradient * (target == TRAINING)).sum(0).abs()
        torch.testing.assert_close(per_label, torch.full((L,), 0.5 / (2 * L)))


def test_balanced_weights_by_effective_number() -> None:
    negative, positive = make_loss("balanced", beta=0.99).weights
    ratio = (1 - 0.99**193) / (1 - 0.99**7)  # of label 0: 193 negatives, 7 positives
    assert (positive[0] / negative[0]).item() == pytest.approx(ratio, rel=1e-5)


def test_balanced_with_beta_zero_is_plain_and_empty_classes_are_finite() -> None:
    logits, targets = rows()
    torch.testing.assert_close(
        make_loss("balanced", beta=0.0)(logits, targets), make_loss("plain")(logits, targets)
    )
    loss = LabelLoss(L, "balanced")
    loss.balance(torch.tensor([[0.0, 1, 0], [0, 1, 1]]))
    assert loss.weights.isfinite().all()
    assert loss(logits, targets).isfinite()


def asymmetric(logit: float, target: int, gamma_neg: float, gamma_pos: float, margin: float) -> float:
    """The definition for one label."""
    p = 1 / (1 + math.exp(-logit))
    if target:
        return -((1 - p) ** gamma_pos) * math.log(p)
    shifted = max(p - margin, 0.0)
    return -(shifted**gamma_neg) * math.log(1 - shifted)


@pytest.mark.parametrize(
    ("gamma_neg", "gamma_pos", "margin"), [(4, 1, 0.05), (2, 0, 0.2), (0, 3, 0.1), (1.5, 0.5, 0)]
)
def test_asymmetric_equals_the_definition(gamma_neg: float, gamma_pos: float, margin: float) -> None:
    options = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "margin": margin}
    logits = torch.linspace(-9, 9, 37, dtype=torch.float64)[:, None]
    for target in (0, 1):
        losses = LabelLoss(1, "asymmetric", **options).each(logits, torch.full_like(logits, target))
        expected = [asymmetric(x, target, **options) for x in logits[:, 0].tolist()]
        torch.testing.assert_close(losses[:, 0], torch.tensor(expected, dtype=torch.float64))


def test_asymmetric_by_hand() -> None:
    logits = torch.tensor([[math.log(3), math.log(3), -9.0]])  # p: 3/4, 3/4 and less than the margin
    losses = make_loss("asymmetric", gamma_neg=2.0, gamma_pos=1.0, margin=0.25).each(
        logits, torch.tensor([[1.0, 0, 0]])
    )
    torch.testing.assert_close(losses, torch.tensor([[-0.25 * math.log(0.75), 0.25 * math.log(2), 0]]))


def test_asymmetric_without_gamma_and_margin_is_plain() -> None:
    asymmetric = make_loss("asymmetric", gamma_neg=0.0, gamma_pos=0.0, margin=0.0)
    logits, targets = rows()
    logits[0], logits[1] = 100, -100
    result, expected = (
        torch.autograd.functional.vjp(lambda x, loss=loss: loss(x, targets), logits)
        for loss in (asymmetric, make_loss("plain"))
    )
    torch.testing.assert_close(result, expected)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("plain", {}),
        ("balanced", {}),
        ("asymmetric", {}),
        ("asymmetric", {"margin": 0.0}),
        ("asymmetric", {"margin": 1e-9}),
        ("asymmetric", {"gamma_neg": 0.5, "gamma_pos": 0.5}),
        ("asymmetric", {"gamma_neg": 0.5, "gamma_pos": 0.5, "margin": 0.0}),
        ("asymmetric", {"gamma_neg": 0.0, "gamma_pos": 0.0}),
    ],
)
@pytest.mark.parametrize("logit", [-1000.0, -100.0, -20.0, 0.0, 20.0, 100.0, 1000.0])
def test_value_and_gradient_are_finite_at_extreme_logits(
    kind: str, changes: dict[str, float], logit: float
) -> None:
    logits = torch.full((2, L), logit, requires_grad=True)
    targets = torch.stack((torch.zeros(L), torch.ones(L)))
    losses = make_loss(kind, **changes).each(logits, targets)
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (losses >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_computed_in_float32_under_bf16_autocast(kind: str) -> None:
    torch.manual_seed(1)
    layer, x, targets = nn.Linear(5, L), torch.randn(17, 5), torch.randint(0, 2, (17, L)).float()
    with torch.autocast("cpu", torch.bfloat16):
        logits = layer(x)
        loss = make_loss(kind)(logits, targets)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, make_loss(kind)(logits.float(), targets))
    loss.backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.isfinite().all()
    assert layer.weight.grad.any()
