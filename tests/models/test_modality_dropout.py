"""Modality dropout: frequencies, and samples keep at least one modality."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from carat.models.modality_dropout import drop_modalities, keep_modalities

PATTERNS = torch.tensor(list(product([False, True], repeat=3)))  # all masks of three modalities
DRAWS = 40_000


def draw(modality_mask: list[bool], p: float, seed: int = 1) -> torch.Tensor:
    """Kept modalities of one sample in many draws (DRAWS, M)."""
    uniform = torch.rand(DRAWS, len(modality_mask), generator=torch.Generator().manual_seed(seed))
    return keep_modalities(torch.tensor(modality_mask).expand(DRAWS, -1), uniform, p)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.99])
def test_at_least_one_present_modality_is_kept(p: float) -> None:
    for pattern in PATTERNS:
        kept = draw(pattern.tolist(), p)
        assert not (kept & ~pattern).any()
        assert kept.any(1).all() == pattern.any()


def test_probability_zero_keeps_all_modalities() -> None:
    uniform = torch.tensor([0.0, 0.0, 0.5]).expand(len(PATTERNS), -1)  # 0 can be drawn
    assert torch.equal(keep_modalities(PATTERNS, uniform, 0.0), PATTERNS)


def test_by_hand() -> None:
    modality_mask = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    uniform = torch.tensor([[0.1, 0.6, 0.4], [0.1, 0.2, 0.3], [0.1, 0.2, 0.9]])
    expected = torch.tensor([[False, True, False], [False, False, True], [False, True, False]])
    assert torch.equal(keep_modalities(modality_mask, uniform, 0.5), expected)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("present", [1, 2, 3])
def test_mean_number_of_dropped_modalities(present: int, p: float) -> None:
    """Of n modalities n·p are dropped on average, minus the one that is kept if all would be dropped: pⁿ."""
    dropped = present - draw([True] * present + [False] * (3 - present), p).sum(1).double()
    expected = present * p - p**present
    assert dropped.mean().item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("p", [0.3, 0.7])
def test_modalities_are_dropped_independently_except_the_last(p: float) -> None:
    kept = draw([True, True, True], p)
    for pattern in PATTERNS[1:]:
        number = int(pattern.sum())
        expected = (1 - p) ** number * p ** (3 - number)
        if number == 1:  # plus the draws that would drop all, of which each modality is kept equally often
            expected += p**3 / 3
        frequency = (kept == pattern).all(1).double().mean().item()
        assert frequency == pytest.approx(expected, abs=0.01)


def masks() -> dict[str, torch.Tensor]:
    lengths = torch.tensor([[4, 2, 3], [0, 5, 1], [3, 0, 0], [1, 1, 5]]).repeat(50, 1)
    return {m: torch.arange(5) < lengths[:, [i]] for i, m in enumerate(("a", "b", "c"))}


def test_masks_of_dropped_modalities_are_false_and_others_unchanged() -> None:
    original = masks()
    before = {m: mask.clone() for m, mask in original.items()}
    result = drop_modalities(original, torch.rand(200, 3), 0.5)
    assert list(result) == list(original)
    for m, mask in result.items():
        assert torch.equal(original[m], before[m])
        kept = mask.any(1)
        assert torch.equal(mask[kept], original[m][kept])
        assert (kept < original[m].any(1)).any()  # some are dropped
    assert torch.stack(list(result.values())).any(2).any(0).all()  # but never all of a sample
