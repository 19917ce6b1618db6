"""Unknown labels in metrics, thresholds, intervals and paired tests."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
from sklearn import metrics as sk

from carat.evaluation.bootstrap import group_counts, intervals, paired_test, statistics
from carat.evaluation.metrics import calibration_error, compute_metrics
from carat.evaluation.report import make_report
from carat.evaluation.thresholds import GRID, search_thresholds
from tests.evaluation.test_metrics import NAMES, N, random_scores

NAN = float("nan")


def unknown(labels: np.ndarray, share: float = 0.3, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Labels of which some are NaN, all of them in a few samples; and which are known."""
    random = np.random.default_rng(seed)
    known = random.random(labels.shape) >= share
    known[5:9] = False
    return np.where(known, labels, NAN), known


def test_metrics_are_those_of_the_known_labels() -> None:
    scores, labels = random_scores(3)
    targets, known = unknown(labels)
    guess = scores > 0.4
    metrics = compute_metrics(scores, guess, targets, NAMES)
    flat, flat_guess = labels[known], guess[known]
    assert metrics.micro_f1 == pytest.approx(sk.f1_score(flat, flat_guess))
    assert metrics.precision == pytest.approx(sk.precision_score(flat, flat_guess))
    assert metrics.recall == pytest.approx(sk.recall_score(flat, flat_guess))
    assert metrics.hamming_loss == pytest.approx((flat != flat_guess).mean())
    assert metrics.calibration_error == calibration_error(scores[known], labels[known].astype(bool))
    f1 = []
    for i, name in enumerate(NAMES):
        rows, label = known[:, i], metrics.labels[name]
        one = [x[rows, i] for x in (labels, guess, scores)]
        f1.append(sk.f1_score(*one[:2]))
        assert label.known == rows.sum()
        assert (label.positives, label.predicted) == (one[0].sum(), one[1].sum())
        assert label.f1 == pytest.approx(f1[-1])
        assert label.auroc == pytest.approx(sk.roc_auc_score(one[0], one[2]))
        assert label.average_precision == pytest.approx(sk.average_precision_score(one[0], one[2]))
    assert metrics.macro_f1 == pytest.approx(np.mean(f1))
    positives = [metrics.labels[name].positives for name in NAMES]
    assert metrics.weighted_f1 == pytest.approx(np.average(f1, weights=positives))


def test_metrics_of_samples_by_hand() -> None:
    """Every sample is compared by its own known labels; the last one has none."""
    scores, labels = random_scores(4)
    targets, known = unknown(labels)
    guess = scores > 0.4
    found = []
    for truth, is_known, predicted, score in zip(labels, known, guess, scores, strict=True):
        if not is_known.any():
            continue
        true = set(np.flatnonzero(truth & is_known))
        says = set(np.flatnonzero(predicted & is_known))
        jaccard = len(true & says) / len(true | says) if true | says else None
        ranked = 1.0
        if true and len(true) < is_known.sum():
            ranked = sk.label_ranking_average_precision_score([truth[is_known]], [score[is_known]])
        found.append((jaccard or 0, 1 if jaccard is None else jaccard, true == says, ranked))
    metrics = compute_metrics(scores, guess, targets, NAMES)
    expected = np.mean(np.array(found, dtype=float), axis=0)
    values = (metrics.accuracy, metrics.accuracy_empty_1, metrics.subset_accuracy, metrics.lrap)
    np.testing.assert_allclose(values, expected)
    nothing = (~known.any(1)).sum()
    assert metrics.notes[:2] == [
        f"{known.sum()} of {known.size} labels are known: metrics are over these",
        f"{nothing} of {N} samples have no known label: left out of accuracy, subset accuracy and lrap",
    ]


def test_what_unknown_labels_hide_changes_nothing() -> None:
    scores, labels = random_scores(5)
    targets, known = unknown(labels)
    other = np.where(known, scores, 1 - scores)
    groups = np.arange(N) // 3
    thresholds = dict.fromkeys(NAMES, 0.4)
    reports = [make_report("test", x, targets, groups, thresholds) for x in (scores, other)]
    assert reports[0] == reports[1]
    for kind in ("global", "per-label", "interpolated"):
        found = [search_thresholds(x, targets, kind).tolist() for x in (scores, other)]
        assert found[0] == found[1]


def test_floats_without_nan_are_as_integers() -> None:
    scores, labels = random_scores(6)
    assert asdict(compute_metrics(scores, scores > 0.4, labels, NAMES)) == asdict(
        compute_metrics(scores, scores > 0.4, labels.astype(np.float32), NAMES)
    )


def test_thresholds_maximize_f1_of_known_labels() -> None:
    scores, labels = random_scores(7)
    targets, known = unknown(labels)
    chosen = search_thresholds(scores, targets, "per-label")
    for i, threshold in enumerate(chosen):
        rows = known[:, i]
        f1 = [sk.f1_score(labels[rows, i], scores[rows, i] > t, zero_division=0) for t in GRID]
        assert sk.f1_score(labels[rows, i], scores[rows, i] > threshold) == pytest.approx(max(f1))
    together = search_thresholds(scores, targets, "global")[0]
    micro = [sk.f1_score(labels[known], (scores > t)[known], zero_division=0) for t in GRID]
    assert sk.f1_score(labels[known], (scores > together)[known]) == pytest.approx(max(micro))


def test_bootstrap_counts_equal_the_metrics() -> None:
    scores, labels = random_scores(8)
    targets, _ = unknown(labels)
    guess = scores > 0.4
    counts = group_counts(guess, targets, np.arange(N) // 3)
    found = statistics({name: x.sum(0, keepdims=True) for name, x in counts.items()})
    metrics = compute_metrics(scores, guess, targets, NAMES)
    for name, values in found.items():
        assert values[0] == pytest.approx(getattr(metrics, name)), name


def test_intervals_and_tests_ignore_groups_without_known_labels() -> None:
    scores, labels = random_scores(9)
    targets, guess, groups = labels.astype(float), scores > 0.4, np.arange(N) // 3
    low, high = intervals(guess, targets, groups)["micro_f1"]
    assert low < compute_metrics(scores, guess, targets, NAMES).micro_f1 < high
    targets[60:] = NAN
    other = guess.copy()
    other[60:] = ~other[60:]
    test = paired_test(guess, other, targets, groups, "micro_f1")
    assert (test.difference, test.p) == (0, 1)
    targets[:] = NAN
    test = paired_test(guess, other, targets, groups, "micro_f1")
    assert math.isnan(test.difference)
    assert test.p == 1


def test_labels_and_splits_without_known_labels_have_no_metrics() -> None:
    scores, labels = random_scores(10)
    targets = labels.astype(float)
    targets[:, 1] = NAN
    metrics = compute_metrics(scores, scores > 0.4, targets, NAMES)
    assert math.isnan(metrics.labels["b"].f1)
    assert (metrics.labels["b"].known, metrics.labels["b"].predicted) == (0, 0)
    assert "label 'b' is unknown in every sample: its metrics are nan" in metrics.notes
    assert metrics.macro_f1 == pytest.approx(np.mean([metrics.labels[x].f1 for x in "acde"]))
    targets[:] = NAN
    metrics = compute_metrics(scores, scores > 0.4, targets, NAMES)
    values = [x for x in vars(metrics).values() if isinstance(x, float)]
    assert len(values) == 11
    assert all(map(math.isnan, values))
    report = make_report("test", scores, targets, np.arange(N), dict.fromkeys(NAMES, 0.5))
    assert math.isnan(report.intervals["micro_f1"][0])
    labels[:, 0] = 1
    targets = np.where(np.arange(N)[:, None] < 20, labels, NAN)
    notes = compute_metrics(scores, scores > 0.4, targets, NAMES).notes
    assert "label 'a' always occurs: its AUROC is nan" in notes


def test_reports_count_known_labels() -> None:
    pytest.importorskip("pandas")
    scores, labels = random_scores(11)
    targets, known = unknown(labels)
    report = make_report("test", scores, targets, np.arange(N), dict.fromkeys(NAMES, 0.5))
    assert report.label_frame()["known"].tolist() == known.sum(0).tolist()
    assert report.to_json()["metrics"]["labels"]["a"]["known"] == known[:, 0].sum()
    assert "labels are known" in report._repr_html_()
