"""Loss terms of CARAT and their weighted sum."""

from __future__ import annotations

import math

import pytest
import torch

from carat.models.losses.terms import cross_entropy, distance, weighted_sum


def test_cross_entropy_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 99.0]])
    targets = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    half = math.log(2)
    three_quarters = -math.log(0.75)
    assert cross_entropy(logits, targets).item() == pytest.approx((half + (three_quarters + 99) / 2) / 2)
    assert cross_entropy(logits, targets, torch.tensor([True, False])).item() == pytest.approx(half)


def test_cross_entropy_without_valid_rows_is_zero() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(3, 2), torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0


def test_distance_averages_within_and_sums_over_modalities() -> None:
    features, target = torch.zeros(3, 2, 5, 7), torch.ones(3, 2, 5, 7)
    target[:, 1] = 2
    features[2, 1] = 1000  # absent, must be ignored
    modality_mask = torch.tensor([[True, True], [True, True], [True, False]])
    assert distance(features, target, modality_mask).item() == pytest.approx(1 + 4)
    modality_mask[:, 1] = False
    assert distance(features, target, modality_mask).item() == pytest.approx(1)


def test_weighted_sum_needs_one_weight_per_term() -> None:
    terms = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert weighted_sum(terms, {"a": 1.0, "b": 0.1}).item() == pytest.approx(2.3)
    with pytest.raises(KeyError, match="'c'"):
        weighted_sum(terms, {"a": 1.0, "b": 0.1, "c": 1.0})
