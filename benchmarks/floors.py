"""What any method must beat on reduced MOSEI: constant labels, words, and pooled sentence features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.neural_network import MLPClassifier

from carat.data.store import Store
from carat.evaluation.thresholds import apply_thresholds, f1_from_counts, search_thresholds


@dataclass
class Scored:
    """Scores and truth of a split: (N, L) each, with the groups (N,)."""

    scores: NDArray[Any]
    labels: NDArray[Any]
    groups: NDArray[Any]


@dataclass
class Floor:
    """Predictions (N, L) for the test split; threshold, and whatever else was chosen, from validation."""

    validation_micro_f1: float
    predicted: NDArray[np.bool_]
    scores: NDArray[Any]
    note: str


def micro_f1(predicted: NDArray[Any], labels: NDArray[Any]) -> float:
    """Micro-F1 of (N, L) predictions."""
    guess, true = predicted.astype(bool), labels.astype(bool)
    return float(f1_from_counts((guess & true).sum(), (guess & ~true).sum(), (~guess & true).sum()))


def thresholded(valid: NDArray[Any], truth: NDArray[Any], test: NDArray[Any], note: str) -> Floor:
    """One global threshold from validation scores, applied to test scores."""
    thresholds = search_thresholds(valid, truth, "global")
    reached = micro_f1(apply_thresholds(valid, thresholds), truth)
    note = f"{note}; threshold {thresholds[0]:.2f}"
    return Floor(reached, apply_thresholds(test, thresholds), test, note)


def constant(store: Store) -> Floor:
    """The same set of labels for every sample: the one with the best validation micro-F1."""
    valid, test = (np.asarray(store.labels)[store.indices(split)] for split in ("valid", "test"))
    number = valid.shape[1]
    sets = [c for size in range(1, number + 1) for c in combinations(range(number), size)]
    guesses = [np.isin(np.arange(number), chosen) for chosen in sets]
    reached = [micro_f1(np.broadcast_to(guess, valid.shape), valid) for guess in guesses]
    best = guesses[int(np.argmax(reached))]
    names = ", ".join(np.array(store.label_names)[best])
    predicted = np.broadcast_to(best, test.shape)
    return Floor(max(reached), predicted, predicted.astype(float), f"always {{{names}}}")


def words(store: Store) -> Floor:
    """TF-IDF of words and word pairs, logistic regression by label."""
    rows = {split: store.indices(split) for split in ("train", "valid", "test")}
    texts = {split: [store.transcript(i) for i in chosen] for split, chosen in rows.items()}
    labels = np.asarray(store.labels)
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=3, sublinear_tf=True)
    train = vectorizer.fit_transform(texts["train"])
    model = OneVsRestClassifier(LogisticRegression(C=1.0, max_iter=1000)).fit(train, labels[rows["train"]])
    score: Callable[[str], Any] = lambda split: model.predict_proba(vectorizer.transform(texts[split]))  # noqa: E731
    return thresholded(score("valid"), labels[rows["valid"]], score("test"), "1- and 2-grams, C 1")


def pooled_sentences(store: Store, seed: int, epochs: int = 12) -> Floor:
    """One hidden layer of 256 on mean-pooled token features; epoch chosen on validation."""
    rows = {split: store.indices(split) for split in ("train", "valid", "test")}
    x = {
        split: np.stack([store.features("text", i).astype(np.float32).mean(0) for i in chosen])
        for split, chosen in rows.items()
    }
    labels = np.asarray(store.labels)
    model = MLPClassifier((256,), batch_size=64, learning_rate_init=1e-3, random_state=seed)
    found = []
    for epoch in range(1, epochs + 1):
        model.partial_fit(x["train"], labels[rows["train"]], classes=np.arange(labels.shape[1]))
        valid, test = (model.predict_proba(x[split]) for split in ("valid", "test"))
        found.append(thresholded(valid, labels[rows["valid"]], test, f"epoch {epoch}"))
    return max(found, key=lambda floor: floor.validation_micro_f1)
