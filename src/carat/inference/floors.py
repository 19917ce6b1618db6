"""Floors of a split of a store, fitted on its training split and with thresholds from validation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from carat.config.experiment import ThresholdConfig
from carat.data.store import Store
from carat.evaluation.floors import prior_scores, word_scores
from carat.evaluation.thresholds import apply_thresholds, search_thresholds

TRAIN, VALID = "train", "valid"


def predict_floors(
    store: Store, rows: NDArray[np.int64], threshold: ThresholdConfig
) -> tuple[dict[str, NDArray[np.bool_]], list[str]]:
    """Predict samples by floors: the prior, and TF-IDF with logistic regression where there are transcripts.

    Args:
        store: store with splits train and valid.
        rows: (N,) rows to predict.
        threshold: kind of thresholds of the run.

    Returns:
        Predictions (N, L) by name, and notes.
    """
    splits = store.manifest.splits
    if TRAIN not in splits or VALID not in splits:
        return {}, ["no floors: the store has no splits train and valid"]
    train, valid = store.indices(TRAIN), store.indices(VALID)
    labels, truth = store.targets(train), store.targets(valid)
    if not len(train) or np.isnan(truth).all():
        return {}, ["no floors: no label is known in validation, or nothing is in training"]
    scores = {"prior": [prior_scores(labels, len(x)) for x in (valid, rows)]}
    texts = [[store.transcript(int(row)) for row in x] for x in (train, valid, rows)]
    if any(texts[0]):
        by_words = word_scores(texts[0], labels, texts[1:])
        if by_words is not None:
            scores["TF-IDF"] = by_words
    return {name: _predict(x, truth, threshold) for name, x in scores.items()}, []


def _predict(
    scores: Sequence[NDArray[np.float64]], truth: NDArray[np.float32], threshold: ThresholdConfig
) -> NDArray[np.bool_]:
    """Predict by the second of two tables of scores, with thresholds that are best for the first."""
    thresholds = search_thresholds(scores[0], truth, threshold.kind, threshold.max_micro_f1_drop)
    return apply_thresholds(scores[1], thresholds)
