"""Modalities hidden at random: which, how often, and never the last one."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from carat.models.modality_dropout import drop_modalities, kept_modalities

PATTERNS = torch.tensor(list(product([False, True], repeat=3)))  # every presence of three modalities
DRAWS = 40_000


def often(modality_mask: list[bool], share: float, seed: int = 1) -> torch.Tensor:
    """What stays of one sample in many draws (DRAWS, M)."""
    drawn = torch.rand(DRAWS, len(modality_mask), generator=torch.Generator().manual_seed(seed))
    return kept_modalities(torch.tensor(modality_mask).expand(DRAWS, -1), drawn, share)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_what_stays_is_part_of_presence_and_never_nothing(share: float) -> None:
    for pattern in PATTERNS:
        kept = often(pattern.tolist(), share)
        assert not (kept & ~pattern).any()
        assert kept.any(1).all() == pattern.any()


def test_share_zero_hides_nothing() -> None:
    drawn = torch.tensor([0.0, 0.0, 0.5]).expand(len(PATTERNS), -1)  # 0 can be drawn
    assert torch.equal(kept_modalities(PATTERNS, drawn, 0.0), PATTERNS)


def test_by_hand() -> None:
    modality_mask = torch.tensor([[True, True, True], [True, True, True], [True, True, False]])
    drawn = torch.tensor([[0.1, 0.6, 0.4], [0.1, 0.2, 0.3], [0.1, 0.2, 0.9]])
    expected = torch.tensor([[False, True, False], [False, False, True], [False, True, False]])
    assert torch.equal(kept_modalities(modality_mask, drawn, 0.5), expected)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("present", [1, 2, 3])
def test_the_hidden_share_is_the_expected_one(present: int, share: float) -> None:
    """Of n modalities n·s are hidden on average, less the one that stays when all were to go: sⁿ."""
    hidden = present - often([True] * present + [False] * (3 - present), share).sum(1).double()
    expected = present * share - share**present
    assert hidden.mean().item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("share", [0.3, 0.7])
def test_modalities_are_hidden_independently_but_for_the_last(share: float) -> None:
    kept = often([True, True, True], share)
    for pattern in PATTERNS[1:]:
        number = int(pattern.sum())
        expected = (1 - share) ** number * share ** (3 - number)
        if number == 1:  # also when all were to go, each as often as the others
            expected += share**3 / 3
        found = (kept == pattern).all(1).double().mean().item()
        assert found == pytest.approx(expected, abs=0.01)


def masks() -> dict[str, torch.Tensor]:
    lengths = torch.tensor([[4, 2, 3], [0, 5, 1], [3, 0, 0], [1, 1, 5]]).repeat(50, 1)
    return {m: torch.arange(5) < lengths[:, [place]] for place, m in enumerate(("a", "b", "c"))}


def test_masks_are_taken_whole_or_not_at_all() -> None:
    given = masks()
    before = {m: mask.clone() for m, mask in given.items()}
    hidden = drop_modalities(given, torch.rand(200, 3), 0.5)
    assert list(hidden) == list(given)
    for m, mask in hidden.items():
        assert torch.equal(given[m], before[m])
        there = mask.any(1)
        assert torch.equal(mask[there], given[m][there])
        assert (there < given[m].any(1)).any()  # some are gone
    assert torch.stack(list(hidden.values())).any(2).any(0).all()  # but no sample's last one
