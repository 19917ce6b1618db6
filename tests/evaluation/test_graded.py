"""Metrics against graded labels."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import f1_score, root_mean_squared_error

from carat.evaluation.graded import METRICS, grade_scores
from carat.evaluation.report import make_report

NAMES = ["sad", "glad", "never"]
N = 60


@pytest.fixture
def data() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores, grades of which some are unknown, and groups; the third label is always 0."""
    random = np.random.default_rng(0)
    grades = random.integers(0, 4, (N, 3)).astype(np.float32) / np.float32(3)
    scores = np.clip(grades + random.normal(0, 0.3, grades.shape), 0, 1).astype(np.float32)
    grades[:, 2] = 0
    grades[random.random(grades.shape) < 0.2] = np.nan
    return scores, grades, np.repeat([f"g{i}" for i in range(N // 3)], 3)


def test_metrics_are_those_of_other_libraries(data: tuple[np.ndarray, ...]) -> None:
    scores, grades, groups = data
    report = grade_scores(scores, grades, groups, NAMES)
    for i, name in enumerate(NAMES[:2]):
        known = ~np.isnan(grades[:, i])
        guess, true, found = scores[known, i], grades[known, i], report.labels[name]
        assert found.spearman == pytest.approx(spearmanr(guess, true).statistic)
        assert found.rmse == pytest.approx(root_mean_squared_error(true, guess))
        assert found.strong_f1 == pytest.approx(f1_score(true > 0.5, guess >= 2 / 3))
        assert found.strong == (true > 0.5).sum() > 0
    assert math.isnan(report.labels["never"].spearman)
    assert math.isnan(report.labels["never"].strong_f1)
    for name in METRICS:
        values = [getattr(report.labels[label], name) for label in NAMES]
        assert report.means[name] == pytest.approx(np.nanmean(values))
        low, high = report.intervals[name]
        assert low < report.means[name] < high


def test_intervals_of_one_group_and_of_nothing_known(data: tuple[np.ndarray, ...]) -> None:
    scores, grades, groups = data
    one = grade_scores(scores, grades, np.full(N, "g"), NAMES)
    assert all(math.isnan(end) for ends in one.intervals.values() for end in ends)
    nothing = grade_scores(scores, np.full_like(grades, np.nan), groups, NAMES)
    assert all(math.isnan(x) for x in nothing.means.values())


def test_report_shows_them_beside_the_binary_metrics(data: tuple[np.ndarray, ...]) -> None:
    scores, grades, groups = data
    labels = np.where(np.isnan(grades), np.nan, grades > 0)
    thresholds = dict.fromkeys(NAMES, 0.5)
    corpora = np.where(np.arange(N) < N // 2, "one", "two")
    report = make_report("test", scores, labels, groups, thresholds, corpora=corpora, grades=grades)
    plain = report.to_json()
    assert plain["graded"]["means"]["rmse"] == pytest.approx(report.graded.means["rmse"])  # type: ignore[union-attr]
    assert plain["corpora"]["one"]["graded"]["labels"]["sad"]["strong"] > 0
    assert "Spearman" in report._repr_html_()
    assert list(report.to_frame()["metric"])[-3:] == list(METRICS)
    without = make_report("test", scores, labels, groups, thresholds)
    assert "graded" not in without.to_json()
    assert without.metrics == report.metrics
