"""Floors, parts of a split, few groups, and the ceiling that annotators set."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from carat.evaluation.agreement import measure_agreement
from carat.evaluation.floors import (
    compare_with_floors,
    floor_notes,
    floor_table,
    prior_scores,
    word_scores,
)
from carat.evaluation.report import make_report
from carat.evaluation.subsets import measure_subsets

N = 211


@pytest.fixture
def labels() -> Any:
    return (np.random.default_rng(0).random((N, 3)) < 0.4).astype(np.float64)


def test_a_run_as_good_as_its_floor_is_not_surely_above(labels: Any) -> None:
    random = np.random.default_rng(1)
    good = np.where(random.random(labels.shape) < 0.1, 1 - labels, labels).astype(bool)
    useless = np.ones_like(good)
    groups = np.arange(N) // 5
    floors = compare_with_floors(good, {"always": useless}, labels, groups)
    assert floors["always"].is_surely_below
    assert floor_notes(floors) == []
    same = compare_with_floors(useless, {"always": useless}, labels, groups)
    assert same["always"].differences["micro_f1"].difference == 0
    assert not same["always"].is_surely_below
    assert floor_notes(same) == [
        "not surely above the floor 'always': micro-F1 +.000, 95 % interval +.000 – +.000"
    ]
    report = make_report("test", useless.astype(float), labels, groups, dict.fromkeys("abc", 0.5))
    assert same["always"].values["micro_f1"] == pytest.approx(report.metrics.micro_f1)
    assert same["always"].intervals["micro_f1"] == report.intervals["micro_f1"]
    assert len(floor_table(floors).rows) == 1


def test_prior_is_the_frequency_of_known_labels() -> None:
    labels = np.array([[1, np.nan], [0, np.nan], [1, 0]])
    np.testing.assert_allclose(prior_scores(labels, 2), [[2 / 3, 0]] * 2)


@pytest.mark.parametrize("space", [" ", ""])
def test_words_are_learnt_also_without_spaces(space: str) -> None:
    labels = np.array([[1.0, 0, np.nan], [0.0, 0, np.nan]] * 20)
    texts = [space.join("欢乐天" if row[0] else "悲伤地") for row in labels]
    if space:
        texts = ["glad and merry today" if row[0] else "tears and sorrow today" for row in labels]
    scored = word_scores(texts, labels, [texts[:2], []])
    assert scored is not None
    assert scored[0][0, 0] > 0.7 > 0.3 > scored[0][1, 0]
    np.testing.assert_array_equal(scored[0][:, 1:], 0)  # never positive, and never known
    assert scored[1].shape == (0, 3)
    assert word_scores([""] * 40, labels, [["?"]]) is None


def test_subsets_by_hand(labels: Any) -> None:
    groups = np.arange(N) // 3
    values = np.where(np.arange(N) % 2, "odd", "even").astype("<U4")
    values[:7] = ""
    predicted = labels.astype(bool)
    predicted[values == "odd"] ^= np.random.default_rng(0).random((int((values == "odd").sum()), 3)) < 0.3
    found = measure_subsets("parity", values, predicted, labels, groups)
    assert (found.highest, found.lowest) == ("even", "odd")
    assert found.values["even"].metrics["micro_f1"] == 1
    rows = values == "odd"
    report = make_report(
        "test", predicted[rows].astype(float), labels[rows], groups[rows], dict.fromkeys("abc", 0.5)
    )
    assert found.values["odd"].metrics["micro_f1"] == pytest.approx(report.metrics.micro_f1)
    assert found.gap == pytest.approx(1 - report.metrics.micro_f1)
    assert found.gap_interval[0] < found.gap < found.gap_interval[1]
    assert found.values["odd"].samples == rows.sum()
    assert "'even' minus 'odd'" in found.summary()


def test_intervals_from_few_groups_are_marked(labels: Any) -> None:
    thresholds = dict.fromkeys("abc", 0.5)
    for groups, note in ((19, True), (20, False)):
        report = make_report("test", labels, labels, np.arange(N) % groups, thresholds)
        assert any("fewer than 20" in x for x in report.metrics.notes) == note
    found = measure_subsets("a", np.where(np.arange(N) < 9, "x", "y"), labels, labels, np.arange(N))
    assert [("~" in str(row)) for row in found.table().rows] == [True, False]


def test_ceiling_by_hand() -> None:
    labels = np.array([[1.0], [1.0], [0.0], [np.nan]])
    grades = np.array([[1.0], [0.5], [0.1], [np.nan]])
    found = measure_agreement(np.array([[1], [0], [0], [1]]), labels, grades)
    # tp = sum of the grades of what is predicted, against a total of 1.6
    assert found.run == pytest.approx(2 * 1 / (1 + 1.6))
    assert found.labels == pytest.approx(2 * 1.5 / (2 + 1.6))
    assert found.ceiling == found.labels
    perfect = measure_agreement(labels, labels, labels)
    assert perfect.run == perfect.ceiling == 1
