"""Calibration: maps against their definitions, their choice, and reliability with intervals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from carat.evaluation.calibration.fitting import FEW, FEWEST, calibrate, fit_map
from carat.evaluation.calibration.maps import KINDS, ScoreMap, map_scores, map_thresholds
from carat.evaluation.calibration.plots import draw_reliability
from carat.evaluation.calibration.reliability import (
    compare_reliability,
    measure_reliability,
    reliability_curve,
)
from carat.evaluation.metrics import calibration_error
from carat.evaluation.thresholds import apply_thresholds

N, GROUP = 1201, 7


def logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


@pytest.fixture
def data() -> tuple[Any, Any, Any]:
    """Overconfident, shifted scores of three labels; true labels, a tenth unknown; groups."""
    random = np.random.default_rng(0)
    logits = 1.2 * random.normal(size=(N, 3))
    labels = (random.random((N, 3)) < logistic(logits)).astype(np.float64)
    labels[random.random((N, 3)) < 0.1] = np.nan
    return logistic(3 * logits + 1).astype(np.float32), labels, np.arange(N) // GROUP


def test_maps_by_their_definitions() -> None:
    s = np.array([0.1, 0.5, 0.8])
    logit = np.log(s / (1 - s))
    np.testing.assert_allclose(ScoreMap("temperature", 0.5, 0.5)(s), logistic(logit / 2))
    np.testing.assert_allclose(ScoreMap("platt", 2, 2, -1)(s), logistic(2 * logit - 1))
    np.testing.assert_allclose(
        ScoreMap("beta", 2, 3, 0.5)(s), logistic(2 * np.log(s) - 3 * np.log(1 - s) + 0.5)
    )
    isotonic = ScoreMap("isotonic", x=[0.2, 0.6], y=[0.1, 0.3])
    np.testing.assert_allclose(isotonic(s), 0.999 * np.array([0.1, 0.25, 0.3]) + 0.001 * s)
    np.testing.assert_array_equal(ScoreMap()(s), s)
    ends = np.array([0.0, 1.0])
    assert np.isfinite(ScoreMap("platt", 9, 9, 5)(ends)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_maps_are_increasing_so_that_decisions_stay(kind: Any, data: Any) -> None:
    scores, labels, groups = data
    names = ["a", "b", "c"]
    maps = [fit.score_map for fit in calibrate(scores, labels, groups, names, kind).labels.values()]
    assert [x.kind for x in maps] == [kind] * 3
    for score_map in maps:
        mapped = score_map(np.linspace(0, 1, 1001)[1:-1])
        assert (np.diff(mapped) > 0).all()
        assert mapped.min() >= 0
        assert mapped.max() <= 1
    thresholds = {"a": 0.31, "b": 0.5, "c": 0.9}
    mapped_thresholds = map_thresholds(thresholds, maps)
    expected = apply_thresholds(scores, np.array(list(thresholds.values())))
    found = apply_thresholds(map_scores(scores, maps), np.array(list(mapped_thresholds.values())))
    np.testing.assert_array_equal(found, expected)


def test_the_map_that_made_the_scores_is_found(data: Any) -> None:
    scores, labels, groups = data
    done = calibrate(scores, labels, groups, ["a", "b", "c"], "platt")
    for fit in done.labels.values():
        assert fit.score_map.a == pytest.approx(1 / 3, abs=0.05)
        assert fit.score_map.c == pytest.approx(-1 / 3, abs=0.2)
    auto = calibrate(scores, labels, groups, ["a", "b", "c"])
    for i, fit in enumerate(auto.labels.values()):
        assert fit.score_map.kind in ("platt", "beta")
        assert fit.log_loss[fit.score_map.kind] == min(fit.log_loss.values())
        assert set(fit.log_loss) == set(KINDS)
        assert fit.known == int((~np.isnan(labels[:, i])).sum())
    assert auto.held_out.shape == scores.shape


def test_temperature_is_a_logistic_regression_without_offset(data: Any) -> None:
    scores, labels, _ = data
    known = ~np.isnan(labels[:, 0])
    s, y = scores[known, 0].astype(np.float64), labels[known, 0].astype(bool)
    logit = np.log(np.clip(s, 1e-7, 1 - 1e-7)) - np.log1p(-np.clip(s, 1e-7, 1 - 1e-7))
    found = fit_map("temperature", s, y)
    plain = LogisticRegression(C=np.inf, fit_intercept=False).fit(logit[:, None], y)
    assert found is not None
    assert found.a == found.b == pytest.approx(plain.coef_[0, 0], rel=0.02)  # targets are smoothed


def test_folds_keep_groups_together() -> None:
    """Scores that identify the group would be rewarded by folds of samples; here they are not."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 20)
    of_group = random.random(60)
    labels = (random.random(1200) < np.round(of_group)[random.permutation(60)][groups]).astype(float)
    fits = calibrate(of_group[groups, None], labels[:, None], groups, ["a"]).labels
    losses = fits["a"].log_loss
    assert losses["isotonic"] > losses["temperature"]


@pytest.mark.parametrize(
    ("positives", "kinds", "note"),
    [
        (0, set(), "0 positives or negatives, fewer than 10"),
        (FEWEST - 1, set(), "9 positives or negatives, fewer than 10"),
        (FEWEST, {"none", "temperature"}, "10 positives or negatives, fewer than 30"),
        (FEW, set(KINDS), ""),
    ],
)
def test_few_positives_get_simpler_maps(positives: int, kinds: set[str], note: str, data: Any) -> None:
    scores, groups = data[0][:, :1], data[2]
    labels = np.zeros((N, 1))
    labels[np.random.default_rng(1).choice(N, positives, replace=False)] = 1
    fit = calibrate(scores, labels, groups, ["a"]).labels["a"]
    assert set(fit.log_loss) == kinds
    assert fit.note == note
    if not kinds:
        assert fit.score_map.kind == "none"


def test_labels_that_cannot_be_calibrated_keep_their_scores(data: Any) -> None:
    scores, labels, groups = data
    constant = np.full_like(scores[:, :1], 0.4)
    assert calibrate(constant, labels[:, :1], groups, ["a"]).labels["a"].note == "its scores are constant"
    one_group = np.zeros(N, int)
    fit = calibrate(scores[:, :1], labels[:, :1], one_group, ["a"]).labels["a"]
    assert (fit.score_map.kind, fit.note) == ("none", "its positives are in too few groups")
    falling = calibrate(1 - scores[:, :1], labels[:, :1], groups, ["a"], "platt").labels["a"]
    assert (falling.score_map.kind, falling.note) == ("none", "its scores do not rise with it")
    unknown = np.full((N, 1), np.nan)
    assert calibrate(scores[:, :1], unknown, groups, ["a"]).labels["a"].known == 0


def test_separable_scores_give_finite_maps() -> None:
    y = np.arange(200) >= 100
    for kind in KINDS:
        score_map = fit_map(kind, np.where(y, 0.9, 0.1), y)
        assert score_map is not None
        assert 0 < float(score_map(np.array(0.1))) < float(score_map(np.array(0.9))) < 1


def test_reliability_leaves_unknown_labels_out(data: Any) -> None:
    scores, labels, groups = data
    known = ~np.isnan(labels)
    found = measure_reliability(scores, labels, groups)
    true = labels[known].astype(bool)
    assert found.calibration_error == pytest.approx(calibration_error(scores[known], true))
    assert found.brier == pytest.approx(np.mean((scores[known].astype(float) - true) ** 2))
    for value, (low, high) in (
        (found.calibration_error, found.calibration_error_interval),
        (found.brier, found.brier_interval),
    ):
        assert low < value < high
    alone = measure_reliability(scores, labels, np.zeros(N))
    assert np.isnan([*alone.brier_interval, *alone.calibration_error_interval]).all()


def test_calibration_halves_the_error(data: Any, tmp_path: Path) -> None:
    scores, labels, groups = data
    names = ["a", "$b", "<c>"]
    half = N // 2
    fits = calibrate(scores[:half], labels[:half], groups[:half], names)
    maps = [fit.score_map for fit in fits.labels.values()]
    rest, truth = scores[half:], labels[half:]
    report = compare_reliability(
        rest, map_scores(rest, maps), truth, groups[half:], dict.fromkeys(names, "x")
    )
    assert report.all.after.calibration_error < report.all.before.calibration_error / 2
    assert report.all.after.brier < report.all.before.brier
    assert len(report.table().rows) == 4
    draw_reliability(rest, map_scores(rest, maps), truth, names, tmp_path / "reliability.svg")
    assert (tmp_path / "reliability.svg").read_text().startswith("<?xml")


def test_curve_by_hand() -> None:
    mean, frequency, number = reliability_curve(np.array([0.1, 0.2, 0.9]), np.array([True, False, True]), 2)
    np.testing.assert_allclose(mean, [0.15, 0.9])
    np.testing.assert_allclose(frequency, [0.5, 1])
    assert number.tolist() == [2, 1]
