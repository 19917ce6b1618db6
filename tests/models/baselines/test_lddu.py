"""LDDU: sampling, fusion, contrastive classes and calibration of the Gaussians."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from carat.models.baselines.lddu import Lddu, calibration, certainty, divergence, draw
from tests.models.baselines.test_baselines import small
from tests.models.carat.test_model import LABELS, WIDTHS, B, batch

PRESENCE = torch.tensor([[True, True, False], [True, False, True]])


def make() -> Lddu:
    method = small("lddu")
    assert isinstance(method, Lddu)
    return method


def test_weights_are_inverse_variances_of_present_modalities() -> None:
    variance = torch.tensor([2.0, 8.0, 1e-3])[None, :, None].expand(2, 3, 1)
    weights = certainty(variance.log(), PRESENCE)[..., 0]
    torch.testing.assert_close(weights[0], torch.tensor([0.8, 0.2, 0]))
    torch.testing.assert_close(weights[1], torch.tensor([1e-3, 0, 2.0]) / 2.001)


def slow_calibration(log_variance: Tensor, errors: Tensor, modality_mask: Tensor) -> Tensor:
    """Reference implementation with a loop over labels and present modalities."""
    divergences = []
    for label in range(errors.shape[2]):
        e, u = errors[:, :, label][modality_mask], log_variance[:, :, label][modality_mask]
        wanted, found = e.exp() / e.exp().sum(), u.exp() / u.exp().sum()
        divergences.append((wanted * (wanted / found).log()).sum())
    return torch.stack(divergences).mean()


def test_calibration_equals_the_definition_and_ignores_absent_modalities() -> None:
    log_variance, errors = torch.randn(2, 3, 4, requires_grad=True), torch.rand(2, 3, 4) * 3
    expected = slow_calibration(log_variance, errors, PRESENCE)
    found = calibration(log_variance, errors.where(PRESENCE[..., None], 1e4), PRESENCE)
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(x, log_variance)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][~PRESENCE].any()


def test_calibration_matches_uncertainty_to_error() -> None:
    errors = torch.rand(2, 3, 4) * 3
    assert calibration(errors - 5, errors, PRESENCE).item() == pytest.approx(0, abs=1e-6)
    level = torch.zeros(2, 3, 4, requires_grad=True)
    calibration(level, errors, PRESENCE).backward()
    assert level.grad is not None
    for label in range(4):  # the step raises the variance the more, the larger the error
        step, error = -level.grad[:, :, label][PRESENCE], errors[:, :, label][PRESENCE]
        assert (step.argsort() == error.argsort()).all()


def test_divergence_equals_that_of_torch() -> None:
    means, log_variances = torch.randn(5, 3, 7), torch.randn(5, 3, 7)
    expected = kl_divergence(Normal(means, (log_variances / 2).exp()), Normal(0.0, 1.0)).mean(-1)
    torch.testing.assert_close(divergence(means, log_variances), expected)


def test_samples_have_the_right_moments_and_use_the_generator() -> None:
    means, log_variances = torch.full((20_000,), 3.0), torch.full((20_000,), math.log(4.0))
    samples = draw(means, log_variances, torch.Generator().manual_seed(1))
    assert samples.mean().item() == pytest.approx(3, abs=0.05)
    assert samples.var().item() == pytest.approx(4, rel=0.05)
    method, (features, masks, labels) = make().train(), batch()
    outputs = method(features, masks)
    first, again, other = (
        method.losses(outputs, labels, torch.Generator().manual_seed(seed))["total"] for seed in (1, 1, 2)
    )
    assert first == again != other


def test_sampled_loss_without_variance_equals_the_loss_of_the_scores() -> None:
    """At the lower bound of the log-variance, training equals inference."""
    method, (features, masks, labels) = make().train(), batch()
    with torch.no_grad():
        for head in method.gaussians.values():
            head.bias[head.out_features // 2 :] = -1e4
    outputs = method(features, masks)
    expected = method.label_loss(outputs.logits, labels)
    torch.testing.assert_close(method.losses(outputs, labels)["labels"], expected, atol=1e-3, rtol=1e-3)


def test_attribution_has_the_largest_weight() -> None:
    method, (features, masks, _) = make().eval(), batch()
    with torch.no_grad():  # audio is sure of everything
        method.gaussians["audio"].bias[32:] -= 5
    outputs = method(features, masks)
    torch.testing.assert_close(outputs.weights.sum(1), torch.ones(B, len(LABELS)))
    assert not outputs.weights[~outputs.modality_mask].any()
    with_audio = outputs.modality_mask[:, 2]
    assert (outputs.attribution[with_audio] == 2).all()
    assert (outputs.attribution[~with_audio] < 2).all()


def test_classes_separate_modality_label_and_presence() -> None:
    method, (features, masks, labels) = make(), batch()
    outputs = method(features, masks)
    method.update_after_step(outputs, labels)
    filled = method.memory_bank.classes[: int(method.memory_bank.pointer)].tolist()
    size = len(LABELS)
    expected = [
        label + size * (2 * modality + int(labels[i, label] == 0))
        for i in range(B)
        for modality in range(len(WIDTHS))
        for label in range(size)
        if outputs.modality_mask[i, modality]
    ]
    assert filled == expected
    rows = method.memory_bank.rows[: len(filled)]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(filled)))


def test_attention_sums_to_one_over_valid_steps() -> None:
    method, (features, masks, _) = make().eval(), batch()
    for m, weights in method.attention(features, masks).items():
        assert weights.shape == (B, len(LABELS), masks[m].shape[1])
        assert not (weights * ~masks[m][:, None]).any()
        present = masks[m].any(1)
        torch.testing.assert_close(weights[present].sum(-1), torch.ones_like(weights[present][..., 0]))
