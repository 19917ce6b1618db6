"""Conformal decisions: bounds by hand, and their promises over many draws of groups."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from carat.evaluation.conformal import (
    RISKS,
    decide,
    fit_bounds,
    guarantee,
    measure_decisions,
    needed_groups,
)
from carat.runs.calibration import LabelBounds


def bounds_at(risk: float, scores: Any, labels: Any, groups: Any) -> tuple[float | None, float | None]:
    found = fit_bounds(np.array(scores)[:, None], np.array(labels)[:, None], np.array(groups), ["a"])["a"]
    index = RISKS.index(risk)
    return found["absent"][index], found["present"][index]


def draw(random: np.random.Generator, groups: int) -> tuple[Any, Any, Any]:
    """Groups of 1 to 8 samples whose labels and scores depend on the group: scores, labels, groups."""
    of = np.repeat(np.arange(groups), random.integers(1, 9, groups))
    latent = random.normal(size=groups)[of] + random.normal(size=len(of))
    noise = 1.5 * random.normal(size=len(of)) + 0.7 * random.normal(size=groups)[of]
    scores = 1 / (1 + np.exp(-2 * latent - noise))
    return scores.astype(np.float32)[:, None], (latent > 1).astype(int)[:, None], of


def test_bound_by_hand() -> None:
    # three groups with the label, so that a mean loss of l promises (3 l + 1) / 4
    scores, labels = [0.1, 0.5, 0.7, 0.8, 0.9, 0.3], [1, 1, 1, 1, 0, 1]
    groups = ["x", "x", "y", "y", "y", "z"]
    # risk .5 leaves 4 * .5 - 1 = 1 for the sum of the groups' rates: 1/2 at .1, and all of z at .3 exceeds it
    assert bounds_at(0.5, scores, labels, groups)[0] == pytest.approx(0.3)
    assert bounds_at(0.25, scores, labels, groups)[0] == pytest.approx(0.1)  # nothing may be missed
    assert bounds_at(0.24, scores, labels, groups)[0] is None
    # y is the only group with a false discovery: its proportion is 1 when .9 alone is called present
    assert bounds_at(0.25, scores, labels, groups)[1] == pytest.approx(0.9)
    assert bounds_at(0.5, scores, labels, groups)[1] == 0.0


def test_needed_groups() -> None:
    assert [needed_groups(x) for x in (0.05, 0.1, 0.2, 0.5)] == [19, 9, 4, 1]
    labels = np.array([[1], [0]] * 8)
    scores = np.linspace(0.1, 0.9, 16)[:, None]
    few = fit_bounds(scores, labels, np.arange(16) // 2, ["a"])["a"]
    assert few["absent"][RISKS.index(0.1)] is None
    assert few["present"][RISKS.index(0.1)] is None
    lines = guarantee(0.1, 0.1, "here", {"a": LabelBounds(**few)})
    assert "'a' is never called absent: 8 groups have it, 9 are needed" in lines
    assert "'a' is never called present: it is known in 8 groups, 9 are needed" in lines


@pytest.mark.parametrize("risk", [0.1, *(pytest.param(x, marks=pytest.mark.slow) for x in (0.05, 0.2))])
def test_promises_hold_on_new_groups(risk: float) -> None:
    """The mean over draws is below the risk, up to its standard error, and not far below it."""
    random = np.random.default_rng(7)
    missed, wrong = [], []
    for _ in range(120):
        absent, present = bounds_at(risk, *(x[:, 0] if x.ndim == 2 else x for x in draw(random, 60)))
        scores, labels, groups = draw(random, 150)
        low = np.array([-np.inf if absent is None else absent])
        high = np.array([np.inf if present is None else present])
        # thresholds that clamp nothing: decisions by the bounds alone
        called = decide(scores, np.array([np.inf]), low, None)
        missed.append(measure_decisions(called, labels, groups, ["a"])["a"].false_negatives)
        called = decide(scores, np.array([-np.inf]), None, high)
        wrong.append(measure_decisions(called, labels, groups, ["a"])["a"].false_discoveries)
    for values in (missed, wrong):
        assert np.mean(values) < risk + 2 * np.std(values) / np.sqrt(len(values))
        assert np.mean(values) > risk / 3


def test_bounds_rise_with_the_risk() -> None:
    found = fit_bounds(*draw(np.random.default_rng(3), 97), ["a"])["a"]
    absent = [-1 if x is None else x for x in found["absent"]]
    present = [2 if x is None else x for x in found["present"]]
    assert absent == sorted(absent)
    assert present == sorted(present, reverse=True)


def test_decisions_never_contradict_the_threshold() -> None:
    scores = np.array([[0.1], [0.3], [0.5], [0.9]])
    threshold = np.array([0.4])
    by = {
        name: decide(scores, threshold, absent, present)[:, 0].tolist()
        for name, absent, present in (
            ("missed", np.array([0.2]), None),
            ("generous", np.array([0.8]), None),
            ("never", np.array([-np.inf]), None),
            ("wrong", None, np.array([0.6])),
            ("both", np.array([0.2]), np.array([0.6])),
        )
    }
    assert by == {
        "missed": ["absent", "unsure", "present", "present"],
        "generous": ["absent", "absent", "present", "present"],
        "never": ["unsure", "unsure", "present", "present"],
        "wrong": ["absent", "absent", "unsure", "present"],
        "both": ["absent", "unsure", "unsure", "present"],
    }


def test_rates_by_hand_without_unknown_labels() -> None:
    labels = np.array([[1.0], [1.0], [0.0], [1.0], [np.nan], [0.0]])
    called = np.array([["absent"], ["present"], ["present"], ["unsure"], ["absent"], ["absent"]])
    rates = measure_decisions(called, labels, np.array([0, 0, 0, 1, 1, 2]), ["a"])["a"]
    assert rates.false_negatives == pytest.approx((0.5 + 0) / 2)
    assert rates.false_discoveries == pytest.approx((0.5 + 0 + 0) / 3)
    assert rates.unsure == pytest.approx(1 / 5)
    low, high = rates.false_negatives_interval
    assert 0 <= low <= rates.false_negatives <= high <= 1


def test_unknown_labels_and_absent_positives_give_no_error() -> None:
    scores, groups = np.linspace(0, 1, 6)[:, None], np.arange(6) // 2
    for value in (np.nan, 0.0, 1.0):
        labels = np.full((6, 1), value)
        found = fit_bounds(scores, labels, groups, ["a"])["a"]
        assert len(found["absent"]) == len(found["present"]) == len(RISKS)
    rates = measure_decisions(np.full((6, 1), "absent"), np.full((6, 1), np.nan), groups, ["a"])["a"]
    assert np.isnan(rates.false_negatives)
    assert np.isnan(rates.unsure)
