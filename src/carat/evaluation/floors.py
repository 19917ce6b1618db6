"""Floors: what simple predictors reach on the same samples, and whether a run is surely above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from carat.evaluation.bootstrap import (
    Interval,
    Paired,
    group_counts,
    intervals,
    paired_test,
    statistics,
)
from carat.evaluation.formatting import decimal, signed
from carat.evaluation.known import split_labels
from carat.utils.tables import Table

METRICS = ("micro_f1", "macro_f1")
SPACES = 0.08
"""Share of white space in a text below which its language is taken to be written without."""


@dataclass(frozen=True)
class Floor:
    """A simple predictor beside a run, on the same samples.

    Args:
        values: micro-F1 and macro-F1 of the floor.
        intervals: their 95 % intervals, resampled by group.
        differences: run minus floor by metric, by paired bootstrap.
    """

    values: dict[str, float]
    intervals: dict[str, Interval]
    differences: dict[str, Paired]

    @property
    def is_surely_below(self) -> bool:
        """Whether the interval of the difference in micro-F1 is above 0."""
        return self.differences["micro_f1"].interval[0] > 0


def compare_with_floors(
    predicted: NDArray[Any],
    floors: Mapping[str, NDArray[Any]],
    labels: NDArray[Any],
    groups: NDArray[Any],
) -> dict[str, Floor]:
    """Compare predictions with those of floors, (N, L) each; labels are NaN where unknown.

    Args:
        predicted: of the run.
        floors: by name.
        labels: (N, L), 0 or 1, NaN where unknown.
        groups: (N,) group names.
    """
    found = {}
    for name, guess in floors.items():
        tests = {m: paired_test(predicted, guess, labels, groups, m) for m in METRICS}
        own = floor_values(guess, labels, groups)
        every = intervals(guess, labels, groups)
        found[name] = Floor(own, {m: every[m] for m in METRICS}, tests)
    return found


def floor_values(predicted: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any]) -> dict[str, float]:
    """Micro-F1 and macro-F1 of predictions (N, L)."""
    sums = {k: x.sum(0, keepdims=True) for k, x in group_counts(predicted, labels, groups).items()}
    values = statistics(sums)
    return {m: float(values[m][0]) for m in METRICS}


def floor_table(floors: Mapping[str, Floor]) -> Table:
    """One row per floor."""
    rows = []
    for name, floor in floors.items():
        row = [name]
        for m in METRICS:
            low, high = floor.differences[m].interval
            row += [
                decimal(floor.values[m]),
                f"{signed(floor.differences[m].difference)} ({signed(low)} – {signed(high)})",
            ]
        rows.append(row)
    columns = ["floor", "micro-F1", "run minus floor", "macro-F1", "run minus floor"]
    return Table(columns, rows, "Floors, paired differences with 95 % intervals")


def floor_notes(floors: Mapping[str, Floor]) -> list[str]:
    """Name the floors that a run is not surely above."""
    notes = []
    for name, floor in floors.items():
        if not floor.is_surely_below:
            test = floor.differences["micro_f1"]
            low, high = (signed(x) for x in test.interval)
            notes.append(
                f"not surely above the floor '{name}': micro-F1 {signed(test.difference)}, 95 % interval "
                f"{low} – {high}"
            )
    return notes


def prior_scores(labels: NDArray[Any], samples: int) -> NDArray[np.float64]:
    """Frequency of each known label (N, L) in training, for any number of samples."""
    true, known = split_labels(labels)
    return np.tile(true.sum(0) / np.maximum(known.sum(0), 1), (samples, 1))


def word_scores(
    texts: Sequence[str], labels: NDArray[Any], scored: Sequence[Sequence[str]]
) -> list[NDArray[np.float64]] | None:
    """Score texts by TF-IDF of words and pairs of words, and a logistic regression for each label.

    Characters take the place of words in languages that are written without spaces.

    Args:
        texts: N training texts.
        labels: (N, L), 0 or 1, NaN where unknown.
        scored: lists of texts to score.

    Returns:
        Scores (n, L) of each list; None if the texts have no words.
    """
    true, known = split_labels(labels)
    start = "".join(texts[:1000])
    by_words = sum(map(str.isspace, start)) >= SPACES * len(start)
    vectorizer = TfidfVectorizer(
        analyzer="word" if by_words else "char", ngram_range=(1, 2), min_df=2, sublinear_tf=True
    )
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no word occurs twice
        return None
    inputs = [vectorizer.transform(x) if x else None for x in scored]
    scores = [prior_scores(labels, len(x)) for x in scored]
    for i, rows in enumerate(known.T):
        if 0 < true[rows, i].sum() < rows.sum():
            model = LogisticRegression(max_iter=1000).fit(features[rows], true[rows, i])
            for x, table in zip(inputs, scores, strict=True):
                if x is not None:
                    table[:, i] = model.predict_proba(x)[:, 1]
    return scores
