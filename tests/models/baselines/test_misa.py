"""MISA: losses against their definitions, and absent modalities."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from carat.models.baselines.misa import Misa, MisaOutputs, moment_discrepancy, orthogonality
from carat.utils.errors import ConfigError
from tests.models.baselines.test_baselines import small
from tests.models.carat.test_model import batch

B, P, D = 9, 2, 5


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    x, y = torch.rand(2, B, P, D)
    present = torch.rand(B, P) < 0.6
    present[:2] = True
    return x, y, present


def test_moment_discrepancy_equals_the_definition() -> None:
    x, y, present = pairs()
    found = moment_discrepancy(x, y, present, moments=4)
    for p in range(P):
        one, other = (z[present[:, p], p].double() for z in (x, y))
        expected = (one.mean(0) - other.mean(0)).norm()
        for k in (2, 3, 4):
            moments = [((z - z.mean(0)) ** k).mean(0) for z in (one, other)]
            expected += (moments[0] - moments[1]).norm()
        torch.testing.assert_close(found[p], expected.float())


def test_orthogonality_equals_the_definition() -> None:
    x, y, present = pairs()
    found = orthogonality(x, y, present)
    for p in range(P):
        one, other = (z[present[:, p], p] for z in (x, y))
        one, other = (z - z.mean(0) for z in (one, other))
        one, other = (z / z.norm(dim=1, keepdim=True) for z in (one, other))
        torch.testing.assert_close(found[p], (one.T @ other).square().sum() / D**2)


def test_orthogonality_is_zero_only_for_uncorrelated_directions() -> None:
    present = torch.ones(4, 1, dtype=torch.bool)
    x = torch.tensor([[1.0], [1.0], [-1.0], [-1.0]])[:, None]
    y = torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])[:, None]
    assert orthogonality(x, y, present) == 0
    assert orthogonality(x, x, present) == orthogonality(x, -x, present) == 16


@pytest.mark.parametrize("samples", [0, 1])
def test_losses_of_too_few_samples_are_zero_with_finite_gradients(samples: int) -> None:
    x, y, _ = pairs()
    present = (torch.arange(B) < samples)[:, None].expand(B, P)
    x.requires_grad_()
    moments, aligned = moment_discrepancy(x, y, present, moments=5), orthogonality(x, y, present)
    assert not aligned.any()
    assert moments.any() == bool(samples)
    (moments.sum() + aligned.sum()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def step() -> tuple[Misa, MisaOutputs, Tensor]:
    method = small("misa")
    assert isinstance(method, Misa)
    features, masks, labels = batch()
    return method, method(features, masks), labels


def test_losses_ignore_absent_modalities() -> None:
    method, outputs, labels = step()
    noise = torch.randn_like(outputs.shared).masked_fill(outputs.modality_mask[..., None], 0)
    assert noise.any()
    noisy = replace(
        outputs,
        projected=outputs.projected + noise,
        shared=outputs.shared + noise,
        private=outputs.private + noise,
    )
    torch.testing.assert_close(method.losses(noisy, labels), method.losses(outputs, labels))


def test_reconstruction_target_has_no_gradient() -> None:
    method, outputs, labels = step()
    target = outputs.projected.detach().requires_grad_()
    shared, private = outputs.shared.detach(), outputs.private.detach().requires_grad_()
    method.losses(replace(outputs, projected=target, shared=shared, private=private), labels)[
        "reconstruction"
    ].backward()
    assert private.grad is not None
    assert private.grad.any()
    assert target.grad is None


def test_width_must_be_a_multiple_of_the_heads() -> None:
    with pytest.raises(ConfigError, match=r"method.latent 33 is not a multiple of fusion.heads 2"):
        small("misa", latent=33)
