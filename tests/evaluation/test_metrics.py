from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from carat.evaluation.metrics import calibration_error, compute_metrics, sample_jaccard
from carat.evaluation.thresholds import GRID, apply_thresholds, f1_from_counts, search_thresholds

N, L = 97, 5
NAMES = list("abcde")


def random_scores(seed: int, samples: int = N) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.random((samples, L)) < [0.5, 0.3, 0.2, 0.4, 0.1]).astype(np.uint8)
    labels[0] = 1
    labels[1] = 0
    return np.clip(0.5 * labels + random.random((samples, L)) * 0.7, 0, 1), labels


@settings(max_examples=25)
@given(seed=st.integers(0, 500), threshold=st.floats(0.05, 0.95))
def test_agrees_with_scikit_learn(seed: int, threshold: float) -> None:
    scores, labels = random_scores(seed)
    guess = (scores > threshold).astype(int)
    found = compute_metrics(scores, guess, labels, NAMES)
    options = {"zero_division": 0}
    assert found.micro_f1 == pytest.approx(sk.f1_score(labels, guess, average="micro", **options))
    assert found.macro_f1 == pytest.approx(sk.f1_score(labels, guess, average="macro", **options))
    assert found.weighted_f1 == pytest.approx(sk.f1_score(labels, guess, average="weighted", **options))
    assert found.precision == pytest.approx(sk.precision_score(labels, guess, average="micro", **options))
    assert found.recall == pytest.approx(sk.recall_score(labels, guess, average="micro", **options))
    assert found.hamming_loss == pytest.approx(sk.hamming_loss(labels, guess))
    assert found.subset_accuracy == pytest.approx(sk.accuracy_score(labels, guess))
    assert found.lrap == pytest.approx(sk.label_ranking_average_precision_score(labels, scores))
    jaccard = {v: sk.jaccard_score(labels, guess, average="samples", zero_division=v) for v in (0, 1)}
    assert found.accuracy == pytest.approx(jaccard[0])
    assert found.accuracy_empty_1 == pytest.approx(jaccard[1])
    for i, name in enumerate(NAMES):
        label = found.labels[name]
        assert label.precision == pytest.approx(sk.precision_score(labels[:, i], guess[:, i], **options))
        assert label.recall == pytest.approx(sk.recall_score(labels[:, i], guess[:, i]))
        assert label.f1 == pytest.approx(sk.f1_score(labels[:, i], guess[:, i], **options))
        assert label.auroc == pytest.approx(sk.roc_auc_score(labels[:, i], scores[:, i]))
        assert label.average_precision == pytest.approx(
            sk.average_precision_score(labels[:, i], scores[:, i])
        )


def test_precision_and_recall_are_not_swapped() -> None:
    labels, guess = np.array([[1, 1, 1, 1]]), np.array([[1, 0, 0, 0]])
    found = compute_metrics(guess.astype(float), guess, labels, list("abcd"))
    assert (found.precision, found.recall) == (1.0, 0.25)


def test_jaccard_by_hand() -> None:
    guess = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    true = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=bool)
    assert sample_jaccard(guess, true, empty=0).tolist() == pytest.approx([1 / 3, 0, 0, 1])
    assert sample_jaccard(guess, true, empty=1).tolist() == pytest.approx([1 / 3, 1, 0, 1])


def test_an_absent_label_is_nan_and_said() -> None:
    scores, labels = random_scores(0)
    labels[:, 2] = 0
    found = compute_metrics(scores, scores > 0.5, labels, NAMES)
    assert math.isnan(found.labels["c"].f1)
    assert math.isnan(found.labels["c"].auroc)
    assert found.labels["c"].predicted == (scores[:, 2] > 0.5).sum()
    assert found.notes == ["label 'c' does not occur: its metrics are nan"]
    others = [found.labels[name].f1 for name in "abde"]
    assert found.macro_f1 == pytest.approx(np.mean(others))


def test_no_label_at_all() -> None:
    nothing = np.zeros((3, 2))
    found = compute_metrics(nothing, nothing, nothing, ["a", "b"])
    assert math.isnan(found.macro_f1)
    assert (found.micro_f1, found.hamming_loss, found.subset_accuracy) == (0, 0, 1)
    assert found.notes[-1] == "no label occurs: macro and weighted F1 are nan"


def test_calibration_by_hand() -> None:
    scores = np.array([[0.10, 0.12, 0.9, 1.0]])  # bins 1, 1, 13 and 14 of 15
    true = np.array([[False, True, True, True]])
    assert calibration_error(scores, true) == pytest.approx((abs(0.22 - 1) + 0.1 + 0) / 4)
    sure = np.array([[0.0, 1.0]])
    assert calibration_error(sure, sure.astype(bool)) == 0


@settings(max_examples=8)  # each compares with hundreds of scikit-learn calls
@given(seed=st.integers(0, 100))
def test_no_grid_threshold_is_better(seed: int) -> None:
    scores, labels = random_scores(seed, samples=23)
    common = search_thresholds(scores, labels, "global")
    assert len(set(common.tolist())) == 1
    reached = sk.f1_score(labels, apply_thresholds(scores, common), average="micro")
    others = [sk.f1_score(labels, scores > t, average="micro", zero_division=0) for t in GRID]
    assert reached == pytest.approx(max(others))
    by_label = search_thresholds(scores, labels, "per-label")
    for i in range(L):
        reached = sk.f1_score(labels[:, i], scores[:, i] > by_label[i])
        others = [sk.f1_score(labels[:, i], scores[:, i] > t, zero_division=0) for t in GRID]
        assert reached == pytest.approx(max(others))


def test_threshold_is_the_middle_of_the_best_run() -> None:
    scores, labels = np.array([[0.205], [0.605]]), np.array([[0], [1]])
    assert search_thresholds(scores, labels, "global").tolist() == [0.41]


@pytest.mark.parametrize("seed", range(5))
def test_a_compromise_is_the_best_on_the_way_from_global_to_own(seed: int) -> None:
    scores, labels = random_scores(seed, samples=47)
    common, own = (search_thresholds(scores, labels, kind) for kind in ("global", "per-label"))
    found = search_thresholds(scores, labels, "interpolated")

    def f1(thresholds: Any, average: str) -> float:
        return float(sk.f1_score(labels, scores > thresholds, average=average, zero_division=0))

    tried = [np.round(common + share / 10 * (own - common), 4) for share in range(11)]
    assert any(np.array_equal(found, thresholds) for thresholds in tried)
    allowed = [t for t in tried if f1(t, "micro") >= 0.99 * f1(common, "micro")]
    assert any(np.array_equal(found, thresholds) for thresholds in allowed)
    assert f1(found, "macro") == pytest.approx(max(f1(t, "macro") for t in allowed))
    assert len(allowed) < len(tried) or f1(found, "macro") > f1(common, "macro")


def test_a_label_without_positives_takes_the_global_threshold() -> None:
    scores, labels = random_scores(1)
    labels[:, 3] = 0
    common = search_thresholds(scores, labels, "global")
    assert search_thresholds(scores, labels, "per-label")[3] == common[3]


def test_f1_of_nothing_is_zero() -> None:
    assert f1_from_counts(np.array([0, 2]), np.array([0, 1]), np.array([0, 1])).tolist() == [0, 2 / 3]
