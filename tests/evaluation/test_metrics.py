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
def test_metrics_equal_scikit_learn(seed: int, threshold: float) -> None:
    scores, labels = random_scores(seed)
    guess = (scores > threshold).astype(int)
    metrics = compute_metrics(scores, guess, labels, NAMES)
    options = {"zero_division": 0}
    assert metrics.micro_f1 == pytest.approx(sk.f1_score(labels, guess, average="micro", **options))
    assert metrics.macro_f1 == pytest.approx(sk.f1_score(labels, guess, average="macro", **options))
    assert metrics.weighted_f1 == pytest.approx(sk.f1_score(labels, guess, average="weighted", **options))
    assert metrics.precision == pytest.approx(sk.precision_score(labels, guess, average="micro", **options))
    assert metrics.recall == pytest.approx(sk.recall_score(labels, guess, average="micro", **options))
    assert metrics.hamming_loss == pytest.approx(sk.hamming_loss(labels, guess))
    assert metrics.subset_accuracy == pytest.approx(sk.accuracy_score(labels, guess))
    assert metrics.lrap == pytest.approx(sk.label_ranking_average_precision_score(labels, scores))
    jaccard = {v: sk.jaccard_score(labels, guess, average="samples", zero_division=v) for v in (0, 1)}
    assert metrics.accuracy == pytest.approx(jaccard[0])
    assert metrics.accuracy_empty_1 == pytest.approx(jaccard[1])
    for i, name in enumerate(NAMES):
        label = metrics.labels[name]
        assert label.precision == pytest.approx(sk.precision_score(labels[:, i], guess[:, i], **options))
        assert label.recall == pytest.approx(sk.recall_score(labels[:, i], guess[:, i]))
        assert label.f1 == pytest.approx(sk.f1_score(labels[:, i], guess[:, i], **options))
        assert label.auroc == pytest.approx(sk.roc_auc_score(labels[:, i], scores[:, i]))
        assert label.average_precision == pytest.approx(
            sk.average_precision_score(labels[:, i], scores[:, i])
        )


def test_precision_and_recall_are_not_swapped() -> None:
    labels, guess = np.array([[1, 1, 1, 1]]), np.array([[1, 0, 0, 0]])
    metrics = compute_metrics(guess.astype(float), guess, labels, list("abcd"))
    assert (metrics.precision, metrics.recall) == (1.0, 0.25)


def test_jaccard_by_hand() -> None:
    guess = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]], dtype=bool)
    true = np.array([[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=bool)
    assert sample_jaccard(guess, true, empty=0).tolist() == pytest.approx([1 / 3, 0, 0, 1])
    assert sample_jaccard(guess, true, empty=1).tolist() == pytest.approx([1 / 3, 1, 0, 1])


def test_metrics_of_a_label_without_positives_are_nan_with_a_note() -> None:
    scores, labels = random_scores(0)
    labels[:, 2] = 0
    metrics = compute_metrics(scores, scores > 0.5, labels, NAMES)
    assert math.isnan(metrics.labels["c"].f1)
    assert math.isnan(metrics.labels["c"].auroc)
    assert metrics.labels["c"].predicted == (scores[:, 2] > 0.5).sum()
    assert metrics.notes == ["label 'c' does not occur: its metrics are nan"]
    others = [metrics.labels[name].f1 for name in "abde"]
    assert metrics.macro_f1 == pytest.approx(np.mean(others))


def test_no_label_occurs() -> None:
    nothing = np.zeros((3, 2))
    metrics = compute_metrics(nothing, nothing, nothing, ["a", "b"])
    assert math.isnan(metrics.macro_f1)
    assert (metrics.micro_f1, metrics.hamming_loss, metrics.subset_accuracy) == (0, 0, 1)
    assert metrics.notes[-1] == "no label occurs: macro and weighted F1 are nan"


def test_calibration_by_hand() -> None:
    scores = np.array([[0.10, 0.12, 0.9, 1.0]])  # bins 1, 1, 13 and 14 of 15
    true = np.array([[False, True, True, True]])
    assert calibration_error(scores, true) == pytest.approx((abs(0.22 - 1) + 0.1 + 0) / 4)
    sure = np.array([[0.0, 1.0]])
    assert calibration_error(sure, sure.astype(bool)) == 0


@settings(max_examples=8)  # each compares with hundreds of scikit-learn calls
@given(seed=st.integers(0, 100))
@pytest.mark.slow
def test_thresholds_are_optimal_on_the_grid(seed: int) -> None:
    scores, labels = random_scores(seed, samples=23)
    common = search_thresholds(scores, labels, "global")
    assert len(set(common.tolist())) == 1
    best = sk.f1_score(labels, apply_thresholds(scores, common), average="micro")
    others = [sk.f1_score(labels, scores > t, average="micro", zero_division=0) for t in GRID]
    assert best == pytest.approx(max(others))
    by_label = search_thresholds(scores, labels, "per-label")
    for i in range(L):
        best = sk.f1_score(labels[:, i], scores[:, i] > by_label[i])
        others = [sk.f1_score(labels[:, i], scores[:, i] > t, zero_division=0) for t in GRID]
        assert best == pytest.approx(max(others))


def test_threshold_is_the_middle_of_the_best_run() -> None:
    scores, labels = np.array([[0.205], [0.605]]), np.array([[0], [1]])
    assert search_thresholds(scores, labels, "global").tolist() == [0.41]


@pytest.mark.parametrize("seed", range(5))
def test_interpolated_thresholds_maximize_macro_f1(seed: int) -> None:
    scores, labels = random_scores(seed, samples=47)
    global_threshold, per_label = (
        search_thresholds(scores, labels, kind) for kind in ("global", "per-label")
    )
    interpolated = search_thresholds(scores, labels, "interpolated")

    def f1(thresholds: Any, average: str) -> float:
        return float(sk.f1_score(labels, scores > thresholds, average=average, zero_division=0))

    candidates = [np.round(global_threshold + i / 10 * (per_label - global_threshold), 4) for i in range(11)]
    assert any(np.array_equal(interpolated, thresholds) for thresholds in candidates)
    allowed = [t for t in candidates if f1(t, "micro") >= 0.99 * f1(global_threshold, "micro")]
    assert any(np.array_equal(interpolated, thresholds) for thresholds in allowed)
    assert f1(interpolated, "macro") == pytest.approx(max(f1(t, "macro") for t in allowed))
    assert len(allowed) < len(candidates) or f1(interpolated, "macro") > f1(global_threshold, "macro")


def test_label_without_positives_gets_the_global_threshold() -> None:
    scores, labels = random_scores(1)
    labels[:, 3] = 0
    common = search_thresholds(scores, labels, "global")
    assert search_thresholds(scores, labels, "per-label")[3] == common[3]


def test_f1_of_zero_counts_is_zero() -> None:
    assert f1_from_counts(np.array([0, 2]), np.array([0, 1]), np.array([0, 1])).tolist() == [0, 2 / 3]
