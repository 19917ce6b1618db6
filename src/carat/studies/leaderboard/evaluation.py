"""Evaluation of every method on the test split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store
from carat.evaluation.bootstrap import Interval, Paired, holm, intervals, paired_test
from carat.evaluation.corpora import ByCorpus, metrics_by_corpus, over_seeds
from carat.evaluation.known import split_labels
from carat.evaluation.metrics import Metrics, compute_metrics
from carat.evaluation.thresholds import apply_thresholds, f1_from_counts, search_thresholds
from carat.studies.jobs import Arrays, Job, Scored, read_environment, read_scores

BASE = "carat"
"""The method that all others are tested against."""
COMPARED = ("micro_f1", "macro_f1")
"""Metrics whose difference from the base is tested."""


@dataclass(frozen=True)
class SelectedTrial:
    """The best trial of a method, trained with every seed."""

    method: str
    jobs: Sequence[Job]
    """One per seed."""
    trials: int
    """Number of trials."""
    chosen: Mapping[str, float]
    """Tuned hyperparameters by key; empty if the preset was best."""


@dataclass(frozen=True)
class MethodResult:
    """Test results of one method; sequences have one value per seed."""

    method: str
    chosen: Mapping[str, float]
    trials: int
    seeds: Sequence[int]
    validation: Sequence[float]
    """Validation micro-F1."""
    metrics: Sequence[Metrics]
    rarest: str
    """The label with the fewest positives in training."""
    interval: Mapping[str, Interval]
    """95 % interval by metric, bootstrapped over groups."""
    against: Mapping[str, Paired]
    """Difference from CARAT by metric, p-values corrected over all methods (Holm); empty for CARAT itself."""
    per_label: Sequence[Metrics]
    """Metrics with per-label thresholds, searched on the validation split."""
    missing: Mapping[str, tuple[int, float]]
    """Number of samples and mean micro-F1 over the seeds, by condition of missing modalities."""
    corpora: ByCorpus
    """Metrics by corpus, in stores of several; otherwise empty."""
    parameters: int
    seconds_per_epoch: float
    """Time of training and validation, median over the seeds."""
    epochs: float
    samples_per_second: float
    """Throughput of inference, median over the seeds."""
    peak_gb: float
    """Peak memory of the training process in GB, maximum over the seeds."""

    def mean(self, metric: str) -> float:
        """Mean of a metric over the seeds, see `values`."""
        return float(np.mean(self.values(metric)))

    def values(self, metric: str, per_label: bool = False) -> list[float]:
        """Values of a metric by seed.

        Args:
            metric: field of `Metrics`, or `rarest_f1` for the F1 of the rarest label.
            per_label: use per-label thresholds.
        """
        by_seed = self.per_label if per_label else self.metrics
        if metric == "rarest_f1":
            return [m.labels[self.rarest].f1 for m in by_seed]
        return [float(getattr(m, metric)) for m in by_seed]

    def label_f1(self, label: str) -> list[float]:
        """F1 of one label by seed."""
        return [m.labels[label].f1 for m in self.metrics]


def evaluate_methods(selected: Sequence[SelectedTrial], store: Store, out: Path) -> list[MethodResult]:
    """Evaluate every method on the test split.

    Args:
        selected: the selected trial of each method, whose jobs are complete.
        store: the data.
        out: output folder of the comparison.

    Returns:
        One result per method, sorted by mean micro-F1 in descending order.
    """
    labels, groups = store.targets(), store.groups
    scored = {trial.method: [read_scores(job, out) for job in trial.jobs] for trial in selected}
    predicted = {m: np.stack([x.predicted for x in seeds]) for m, seeds in scored.items()}
    rows = {m: seeds[0].rows for m, seeds in scored.items()}
    tested = [m for m in predicted if m != BASE] if BASE in predicted else []
    against: dict[str, dict[str, Paired]] = {m: {} for m in predicted}
    for metric in COMPARED:
        tests = []
        for m in tested:
            shared = np.intersect1d(rows[m], rows[BASE])
            ours, theirs = (predicted[x][:, np.isin(rows[x], shared)] for x in (m, BASE))
            tests.append(paired_test(ours, theirs, labels[shared], groups[shared], metric, over_seeds=True))
        for m, test, p in zip(tested, tests, holm([test.p for test in tests]), strict=True):
            against[m][metric] = replace(test, p=p)
    results = [
        _evaluate(trial, scored[trial.method], predicted[trial.method], against[trial.method], store, out)
        for trial in selected
    ]
    return sorted(results, key=lambda result: -result.mean("micro_f1"))


def _evaluate(
    trial: SelectedTrial,
    scored: Sequence[Scored],
    predicted: NDArray[np.bool_],
    against: Mapping[str, Paired],
    store: Store,
    out: Path,
) -> MethodResult:
    labels, groups, names = store.targets(), store.groups, store.label_names
    rows, measured, cards = scored[0].rows, [x.arrays for x in scored], [x.card for x in scored]
    costs = [read_environment(job, out) for job in trial.jobs]
    corpora = None if store.corpora is None else store.corpora[rows]
    by_corpus = [metrics_by_corpus(x.scores, x.predicted, labels[rows], names, corpora) for x in scored]
    positives = np.asarray(store.labels)[store.indices("train")].sum(0)
    return MethodResult(
        method=trial.method,
        chosen=trial.chosen,
        trials=trial.trials,
        seeds=[job.experiment.seed for job in trial.jobs],
        validation=[float(card.validation["micro_f1"] or 0) for card in cards],
        metrics=[compute_metrics(x.scores, x.predicted, labels[rows], names) for x in scored],
        rarest=names[int(np.argmin(np.where(positives > 0, positives, positives.max() + 1)))],
        interval=intervals(predicted, labels[rows], groups[rows]),
        against=against,
        per_label=[_per_label(x, labels, names) for x in measured],
        missing=_missing(measured, [list(card.thresholds.values()) for card in cards], labels),
        corpora=over_seeds(by_corpus),
        parameters=int(costs[0]["parameters"]),
        seconds_per_epoch=float(np.median([x["seconds"] / x["epochs"] for x in costs])),
        epochs=float(np.mean([x["epochs"] for x in costs])),
        samples_per_second=float(np.median([len(x["rows"]) / x["seconds"] for x in measured])),
        peak_gb=max(float(x["peak_gb"]) for x in costs),
    )


def _per_label(measured: Arrays, labels: NDArray[Any], names: Sequence[str]) -> Metrics:
    """Test metrics with per-label thresholds, searched on the validation split."""
    thresholds = search_thresholds(measured["valid/scores"], labels[measured["valid/rows"]], "per-label")
    scores = measured["scores"]
    return compute_metrics(scores, apply_thresholds(scores, thresholds), labels[measured["rows"]], names)


def _missing(
    measured: Sequence[Arrays],
    thresholds: Sequence[Sequence[float]],
    labels: NDArray[Any],
) -> dict[str, tuple[int, float]]:
    """Number of samples and mean micro-F1 over the seeds, by condition of missing modalities."""
    suffix = "/scores"
    keys = [k.removesuffix(suffix) for k in measured[0] if k.endswith(suffix) and k != f"valid{suffix}"]
    results = {}
    for key in keys:
        rows = measured[0][f"{key}/rows"]
        values = [
            _micro_f1(apply_thresholds(x[f"{key}/scores"], np.array(t)), labels[rows])
            for x, t in zip(measured, thresholds, strict=True)
            if len(rows)
        ]
        results[key] = len(rows), float(np.mean(values)) if values else float("nan")
    return results


def _micro_f1(predicted: NDArray[np.bool_], labels: NDArray[Any]) -> float:
    true, known = split_labels(labels)
    counts = [x.sum() for x in (predicted & true, predicted & known & ~true, ~predicted & true)]
    return float(f1_from_counts(*counts))
