"""Masked reductions against slow loops, by hand, where nothing is valid, and their gradients."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from carat.models.layers.masking import masked_max, masked_mean, modality_mask_of

SHAPE = (3, 5, 7)


def drawn(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Values (3, 5, 7) and a mask (3, 5) with a valid entry in every row and column."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(SHAPE[:2], generator=generator) < 0.6
    mask[torch.arange(3), torch.arange(3)] = True
    mask[0] = True
    return torch.randn(SHAPE, generator=generator, dtype=torch.float64), mask


@pytest.mark.parametrize("dim", [0, 1])
def test_the_mean_is_that_of_a_loop(dim: int) -> None:
    x, mask = drawn()
    found = masked_mean(x, mask, dim=dim)
    assert found.shape == (SHAPE[1 - dim], SHAPE[2])
    for kept, k in product(range(SHAPE[1 - dim]), range(SHAPE[2])):
        valid = mask.select(1 - dim, kept)
        values = [v for v, there in zip(x.select(1 - dim, kept)[:, k], valid, strict=True) if there]
        assert found[kept, k].item() == pytest.approx(sum(values).item() / len(values))


def test_the_mean_over_everything_is_that_of_a_loop() -> None:
    x, mask = drawn()
    values = [x[i, j, 0] for i, j in product(range(3), range(5)) if mask[i, j]]
    assert masked_mean(x[..., 0], mask).item() == pytest.approx(sum(values).item() / len(values))


def test_without_a_mask_everything_is_valid() -> None:
    x, _ = drawn()
    torch.testing.assert_close(masked_mean(x), x.mean())
    torch.testing.assert_close(masked_mean(x, dim=1), x.mean(1))


def test_where_nothing_is_valid_the_mean_is_zero() -> None:
    x, mask = drawn()
    assert masked_mean(x[..., 0], torch.zeros_like(mask)) == 0
    mask[1] = False
    found = masked_mean(x, mask, dim=1)
    assert (found[1] == 0).all()
    assert (found[0] != 0).all()


def test_gradients_of_the_mean_reach_valid_entries_only() -> None:
    x, mask = drawn()
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_mean(x, mask, dim=1), x)
    masked_mean(x, mask, dim=1).sum().backward()
    assert ((x.grad != 0).all(-1) == mask).all()


def test_means_keep_their_type() -> None:
    x, mask = drawn()
    assert masked_mean(x.bfloat16(), mask, dim=1).dtype == torch.bfloat16


def test_the_largest_present_value_and_its_modality() -> None:
    x, mask = drawn()
    values, indices = masked_max(x, mask)
    for i, k in product(range(3), range(7)):
        present = [j for j in range(5) if mask[i, j]]
        best = max(present, key=lambda j: x[i, j, k].item())
        assert (indices[i, k], values[i, k]) == (best, x[i, best, k])


def test_a_modality_is_present_where_it_has_a_valid_step() -> None:
    masks = {
        "a": torch.tensor([[False, True], [False, False]]),
        "b": torch.tensor([[False, False, False], [True, False, True]]),
    }
    assert modality_mask_of(masks).tolist() == [[True, False], [False, True]]
    assert modality_mask_of(masks, ["b", "a"]).tolist() == [[False, True], [True, False]]
    assert modality_mask_of(masks, ["b"]).tolist() == [[False], [True]]
