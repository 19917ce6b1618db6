"""AMP: masking, perturbation, and disabling either."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor

from carat.models.baselines import amp
from carat.models.baselines.amp import Amp, soft_top_fraction
from carat.models.baselines.label_decoder import attend_by_heads
from tests.models.baselines.test_baselines import small
from tests.models.carat.test_model import batch


def make(**changes: object) -> Amp:
    method = small("amp", **changes)
    assert isinstance(method, Amp)
    return method.train()


def scores_and_mask() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.arange(9) < torch.tensor([9, 4, 1, 0])[:, None]
    return torch.rand(4, 9, dtype=torch.float64), mask


@pytest.mark.parametrize("temperature", [0.02, 0.1, 2.0])
@pytest.mark.parametrize("share", [0.1, 0.4, 0.9])
def test_membership_keeps_the_budget_and_prefers_high_scores(share: float, temperature: float) -> None:
    scores, mask = scores_and_mask()
    hidden = soft_top_fraction(scores, mask, share, temperature)
    torch.testing.assert_close(hidden.sum(1), share * mask.sum(1).double())
    assert ((hidden >= 0) & (hidden <= 1)).all()
    assert not hidden[~mask].any()
    order = scores[0].argsort()
    assert (hidden[0][order].diff() >= 0).all()


def test_low_temperature_selects_the_top_steps() -> None:
    scores, mask = torch.tensor([[0.2, 0.9, 0.1, 0.8, 0.5]]), torch.ones(1, 5, dtype=torch.bool)
    hidden = soft_top_fraction(scores, mask, 0.4, 0.005)
    torch.testing.assert_close(hidden, torch.tensor([[0.0, 1.0, 0.0, 1.0, 0.0]]), atol=1e-3, rtol=0)


def test_gradient_includes_the_threshold() -> None:
    scores, mask = scores_and_mask()
    scores.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: soft_top_fraction(x, mask, 0.4, 0.1), scores, atol=1e-6)


def test_only_the_scorers_have_a_reversed_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compare with the same step without reversal."""

    def gradients() -> dict[str, Tensor]:
        method = make(weights={"masked": 1.0, "perturbed": 0.0})
        features, masks, labels = batch()
        method.losses(method(features, masks), labels)["masked"].backward()
        return {n: p.grad for n, p in method.named_parameters() if p.grad is not None}

    found = gradients()
    monkeypatch.setattr(amp, "reverse", lambda x: x)
    for name, straight in gradients().items():
        sign = -1 if name.startswith("scorers") else 1
        torch.testing.assert_close(found[name], sign * straight, msg=name)
    assert all(found[f"scorers.{m}.weight"].abs().max() > 1e-7 for m in ("text", "visual", "audio"))


def test_perturbed_loss_equals_the_loss_of_a_perturbed_model() -> None:
    method = make(radius=0.03)
    features, masks, labels = batch()
    outputs = method(features, masks)
    losses = method.losses(outputs, labels)
    parameters = dict(method.fusion.named_parameters())
    gradients = torch.autograd.grad(losses["labels"], list(parameters.values()), retain_graph=True)
    other = deepcopy(method)
    with torch.no_grad():
        for parameter, gradient in zip(other.fusion.parameters(), gradients, strict=True):
            parameter += 0.03 * parameter.norm() * gradient / gradient.norm()
    moved = other.label_loss(other(features, masks).logits, labels)
    torch.testing.assert_close(losses["perturbed"], moved, atol=1e-6, rtol=1e-5)
    assert losses["perturbed"] > losses["labels"]
    method.zero_grad()
    losses["perturbed"].backward()
    moved.backward()
    for (name, p), q in zip(method.named_parameters(), other.parameters(), strict=True):
        if not name.startswith("scorers"):
            torch.testing.assert_close(p.grad, q.grad, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("off", "left"), [("masked", "perturbed"), ("perturbed", "masked")])
def test_each_adversary_can_be_disabled(off: str, left: str) -> None:
    method = make(weights={off: 0.0})
    features, masks, labels = batch()
    losses = method.losses(method(features, masks), labels)
    assert losses.keys() == {"labels", left, "total"}
    losses["total"].backward()
    assert not [n for n, p in method.named_parameters() if p.grad is None]


def test_losses_can_be_computed_without_gradients() -> None:
    method = make()
    features, masks, labels = batch()
    expected = method.losses(method(features, masks), labels)["total"]
    with torch.no_grad():
        found = method.losses(method(features, masks), labels)["total"]
    torch.testing.assert_close(found, expected)


def test_attention_without_keys_is_zero_with_finite_gradients() -> None:
    query, key, value = (torch.randn(2, n, 8, requires_grad=True) for n in (3, 5, 5))
    mask = torch.tensor([[True] * 5, [False] * 5])
    seen = attend_by_heads(query, key, value, 2, mask, 0.0)
    assert seen[0].any()
    assert not seen[1].any()
    seen.sum().backward()
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (query, key, value))
