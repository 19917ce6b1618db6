"""Supervised contrastive loss against a loop over its definition."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from carat.models.losses.contrastive import ABSENT, supcon_loss


def reference(
    latents: Tensor, classes: Tensor, queue: Tensor, queue_classes: Tensor, temperature: float
) -> Tensor:
    """The definition, anchor by anchor."""
    keys, key_classes = torch.cat((latents, queue)), torch.cat((classes, queue_classes))
    losses = []
    for i in range(len(latents)):
        others = [j for j in range(len(keys)) if j != i]
        positives = [j for j in others if key_classes[j] == classes[i]]
        if not positives:
            continue
        scores = torch.stack([latents[i] @ keys[j] / temperature for j in others])
        denominator = scores.logsumexp(0)
        losses.append(
            -sum(latents[i] @ keys[j] / temperature - denominator for j in positives) / len(positives)
        )
    return torch.stack(losses).mean() if losses else latents.sum() * 0


def rows(number: int, width: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    latents = F.normalize(torch.randn(number, width, generator=generator, dtype=torch.float64), dim=-1)
    return latents, torch.randint(0, classes, (number,), generator=generator)


def loss_of(latents: Tensor, classes: Tensor, queue: Tensor, queue_classes: Tensor, tile: int = 5) -> Tensor:
    return supcon_loss(
        latents, classes, queue, queue_classes, temperature=0.3, number_of_classes=7, tile=tile
    )


@given(
    number=st.integers(0, 13), queued=st.integers(0, 11), classes=st.integers(1, 7), seed=st.integers(0, 999)
)
def test_value_and_gradient_equal_the_definition(number: int, queued: int, classes: int, seed: int) -> None:
    latents, latent_classes = rows(number, 3, classes, seed)
    queue, queue_classes = rows(queued, 3, classes, seed + 1)
    results = []
    for loss in (loss_of, lambda *x: reference(*x, temperature=0.3)):
        leaf = latents.clone().requires_grad_()
        value = loss(leaf, latent_classes, queue, queue_classes)
        (gradient,) = torch.autograd.grad(value, leaf)
        results.append((value.detach(), gradient))
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize("tile", [1, 2, 3, 11, 512])
def test_value_does_not_depend_on_the_tile(tile: int) -> None:
    latents, classes = rows(11, 5, 3, 0)
    queue, queue_classes = rows(7, 5, 3, 1)
    expected = loss_of(latents, classes, queue, queue_classes, tile=10_000)
    torch.testing.assert_close(loss_of(latents, classes, queue, queue_classes, tile=tile), expected)


@pytest.mark.parametrize("switches", [{}, {"queue_anchors": True, "average_over_all": True, "epsilon": 1e-3}])
def test_absent_rows_are_ignored(switches: dict[str, Any]) -> None:
    latents, classes = rows(11, 5, 3, 0)
    queue, queue_classes = rows(7, 5, 3, 1)
    present, queue_present = torch.arange(11) % 3 > 0, torch.arange(7) % 4 > 0
    leaf = latents.requires_grad_()
    options = {"temperature": 0.3, "number_of_classes": 3, "tile": 4} | switches
    loss = supcon_loss(
        leaf,
        classes.where(present, ABSENT),
        queue,
        queue_classes.where(queue_present, ABSENT),
        **options,
    )
    expected = supcon_loss(
        leaf[present], classes[present], queue[queue_present], queue_classes[queue_present], **options
    )
    torch.testing.assert_close(loss, expected)
    gradients = [torch.autograd.grad(x, leaf)[0] for x in (loss, expected)]
    torch.testing.assert_close(*gradients)
    assert not gradients[0][~present].any()


def test_gradient_equals_the_numerical_gradient() -> None:
    latents, classes = rows(7, 3, 2, 5)
    queue, queue_classes = rows(5, 3, 2, 6)
    assert torch.autograd.gradcheck(
        lambda x: loss_of(F.normalize(x, dim=-1), classes, queue, queue_classes, tile=2),
        latents.requires_grad_(),
    )


def test_value_by_hand() -> None:
    latents = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    loss = supcon_loss(
        latents,
        torch.tensor([0, 0, 1]),
        torch.zeros(0, 2),
        torch.zeros(0, dtype=torch.long),
        temperature=1.0,
        number_of_classes=2,
    )
    # rows 0 and 1 are each other's only positive; row 2 has none and is no anchor
    assert loss.item() == pytest.approx(math.log(math.e + 1) - 1)


def test_loss_without_positives_is_zero() -> None:
    latents, _ = rows(3, 5, 1, 0)
    leaf = latents.requires_grad_()
    loss = loss_of(leaf, torch.tensor([0, 1, 2]), *rows(0, 5, 1, 1))
    loss.backward()
    assert loss.item() == 0
    assert leaf.grad is not None
    assert (leaf.grad == 0).all()


def test_loss_is_finite_at_low_temperature() -> None:
    latents, classes = rows(11, 5, 3, 0)
    leaf = latents.float().requires_grad_()
    loss = supcon_loss(
        leaf,
        classes,
        torch.zeros(0, 5),
        torch.zeros(0, dtype=torch.long),
        temperature=0.001,
        number_of_classes=3,
    )
    loss.backward()
    assert loss.isfinite()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
