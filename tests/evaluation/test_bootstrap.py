from __future__ import annotations

import numpy as np
import pytest

from carat.evaluation.bootstrap import group_counts, intervals, paired_test, resample, statistics
from carat.evaluation.metrics import compute_metrics

N, L = 307, 5


def data(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    labels = (random.random((N, L)) < 0.3).astype(int)
    flip = random.random((N, L)) < 0.2
    return np.where(flip, 1 - labels, labels), labels, random.integers(0, 41, N).astype(str)


def test_statistics_of_the_original_data_equal_the_metrics() -> None:
    guess, labels, groups = data()
    counts = group_counts(guess, labels, groups)
    whole = np.ones((1, len(np.unique(groups))))
    values = statistics({name: whole @ x for name, x in counts.items()})
    metrics = compute_metrics(guess.astype(float), guess, labels, list("abcde"))
    for name, value in values.items():
        assert value[0] == pytest.approx(getattr(metrics, name)), name


def test_resampling_by_hand() -> None:
    guess, labels, groups = data()
    names = np.unique(groups)
    drawn = names[[3, 3, 7, 11]]
    rows = np.concatenate([np.flatnonzero(groups == name) for name in drawn])
    weights = np.zeros((1, len(names)))
    np.add.at(weights[0], [3, 3, 7, 11], 1)
    counts = {name: weights @ x for name, x in group_counts(guess, labels, groups).items()}
    expected = compute_metrics(guess[rows].astype(float), guess[rows], labels[rows], list("abcde"))
    for name, value in statistics(counts).items():
        assert value[0] == pytest.approx(getattr(expected, name)), name


def test_intervals_contain_the_metric_and_are_reproducible() -> None:
    guess, labels, groups = data()
    metrics = compute_metrics(guess.astype(float), guess, labels, list("abcde"))
    by_metric = intervals(guess, labels, groups)
    assert by_metric == intervals(guess, labels, groups)
    for name, (low, high) in by_metric.items():
        assert low < getattr(metrics, name) < high, name


def test_groups_widen_the_interval() -> None:
    """Duplicates of a sample in the same group do not narrow the interval."""
    guess, labels, _ = data()
    copies = [np.repeat(x, 9, axis=0) for x in (guess, labels)]
    together, apart = np.repeat(np.arange(N), 9), np.arange(9 * N)
    width = {name: np.diff(intervals(*copies, groups)["micro_f1"])[0] for name, groups in
             (("together", together), ("apart", apart))}  # fmt: skip
    assert width["together"] > 2.5 * width["apart"]


def test_coverage_of_the_interval() -> None:
    """About 95 % of the intervals contain the true recall of .8."""
    hits = 0
    for seed in range(200):
        random = np.random.default_rng(seed)
        labels = np.ones((150, 1), dtype=int)
        guess = (random.random((150, 1)) < 0.8).astype(int)
        low, high = intervals(guess, labels, np.arange(150), resamples=400)["recall"]
        hits += low <= 0.8 <= high
    assert 180 <= hits <= 198


def test_resamples_have_the_original_number_of_groups() -> None:
    draws = resample(13, 50, seed=1)
    assert draws.shape == (50, 13)
    assert (draws.sum(1) == 13).all()


def test_paired_difference() -> None:
    guess, labels, groups = data()
    better = np.where(np.random.default_rng(1).random((N, L)) < 0.5, labels, guess)
    paired = paired_test(better, guess, labels, groups, "micro_f1")
    value, (low, high) = paired.difference, paired.interval
    metric, baseline = (
        compute_metrics(p.astype(float), p, labels, list("abcde")).micro_f1 for p in (better, guess)
    )
    assert value == pytest.approx(metric - baseline)
    assert 0 < low < value < high
    same = paired_test(guess, guess, labels, groups, "accuracy")
    assert (same.difference, same.interval, same.p) == (0, (0, 0), 1)
    seeds = np.stack([better, guess])
    averaged = paired_test(seeds, guess, labels, groups, "micro_f1")
    assert averaged.difference == pytest.approx(value / 2)
