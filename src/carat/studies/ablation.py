"""Ablation of CARAT's components and of the deviations of the released code."""

from __future__ import annotations

import json
import os
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.config.base import merge
from carat.config.carat import OFFICIAL, OFFICIAL_TOGETHER, CaratConfig
from carat.config.experiment import Experiment, ExperimentLike, as_experiment, parse_experiment
from carat.data.store import Store, open_store
from carat.data.store.store import open_unchanged
from carat.data.summary import check_measurable
from carat.evaluation.bootstrap import Interval, paired_test
from carat.evaluation.corpora import (
    CAPTION,
    ByCorpus,
    corpus_cells,
    corpus_table,
    metrics_by_corpus,
    over_seeds,
)
from carat.evaluation.formatting import in_brackets, mean_and_spread, signed
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.plots import draw_differences
from carat.runs.folder import EXPERIMENT, write_experiment
from carat.studies.jobs import (
    Job,
    Scored,
    claim_study,
    distinct,
    read_environment,
    read_scores,
    run_seeds,
    study_kind,
)
from carat.utils.errors import ConfigError
from carat.utils.files import write_atomically
from carat.utils.tables import Table, escape_markdown

if TYPE_CHECKING:
    import pandas as pd

FULL = "full"
ABLATION = study_kind("ablation", EXPERIMENT, "ablation.md", "ablation.csv", "ablation.svg")
METRICS = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "accuracy": "accuracy (Jaccard)"}


@dataclass(frozen=True)
class Row:
    """Test metrics of one variant by seed, and its difference from the full method."""

    name: str
    samples: int
    """Number of test samples that have at least one of its modalities."""
    metrics: Mapping[str, Sequence[float]]
    """Test metrics by name, one value per seed."""
    validation: Sequence[float]
    """Validation micro-F1 by seed."""
    difference: float
    """Test micro-F1 minus that of the full method, on the samples that both can score; seed mean."""
    interval: Interval
    """95 % interval of the difference, from a paired bootstrap over groups and seeds."""
    corpora: ByCorpus
    """Test metrics by corpus, in stores of several; otherwise empty."""


class Ablation(list[Row]):
    """Results of `ablate`, one per variant, the full method first.

    Example:
        table = carat.ablate({"preset": "small"}, "demo-store", "ablation", seeds=2)
        table.to_frame().sort_values("difference")
    """

    def __repr__(self) -> str:
        return f"Ablation({len(self)} variants, {len(self[0].validation) if self else 0} seeds)"

    def to_frame(self) -> pd.DataFrame:
        """Convert the test results to a data frame with one row per variant.

        Returns:
            Columns `variant`, `samples`, for each metric its mean over the seeds and `<metric>_std`,
            `validation_micro_f1` (mean), and `difference` of test micro-F1 from the full method with its
            95 % interval from `low` to `high`.

        Raises:
            CaratError: pandas is not installed.
        """
        names = [f"{metric}{end}" for metric in METRICS for end in ("", "_std")]
        columns = ["variant", "samples", *names, "validation_micro_f1", "difference", "low", "high"]
        return Table(columns, [self._cells(row) for row in self]).to_frame()

    def _repr_html_(self) -> str:
        return replace(_variant_table(self), title="Ablation, test split").to_html()

    @staticmethod
    def _cells(row: Row) -> list[Any]:
        means = [x for values in row.metrics.values() for x in (np.mean(values), _spread(values))]
        return [row.name, row.samples, *means, np.mean(row.validation), row.difference, *row.interval]


def _spread(values: Sequence[float]) -> float:
    return float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")


def variants(experiment: Experiment, modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the variants of an ablation; those that would change nothing are left out.

    Args:
        experiment: the full method.
        modalities: modalities that it uses.

    Returns:
        Changes to the experiment by name of the variant, `full` first.

    Raises:
        ConfigError: the method is not CARAT.
    """
    method = experiment.method
    if not isinstance(method, CaratConfig):
        raise ConfigError(f"carat ablate supports only the method carat, not {method.name}")
    score_weight = method.weights.beta
    changes: dict[str, dict[str, Any]] = {
        FULL: {},
        "no label-wise features": {"method": {"label_wise": False}},
        "no reconstruction": {"method": {"levels": 0, "weights": {"original": score_weight}}},
        "first level only": {"method": {"levels": 1, "weights": {"alpha": score_weight}}},
        "no contrastive loss": {"method": {"weights": {"contrast": 0.0}}},
        "no prototypes": {"method": {"prototypes": False}},
        "no aggregation": {"method": {"aggregation": False}},
        "no sample shuffle": {"method": {"shuffle": {"samples": False}}},
        "no modality shuffle": {"method": {"shuffle": {"modalities": False}}},
    }
    for size in (1, 2):
        if size < len(modalities):
            for subset in combinations(modalities, size):
                changes[f"only {' + '.join(subset)}"] = {"data": {"modalities": list(subset)}}
    changes |= {f"official: {name}": change for name, change in OFFICIAL.items()}
    changes["official: all combined"] = OFFICIAL_TOGETHER
    full = experiment.model_dump()
    return {name: change for name, change in changes.items() if name == FULL or merge(full, change) != full}


def ablate(
    experiment: ExperimentLike,
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    seeds: int = 3,
    workers: int = 1,
    overwrite: bool = False,
) -> Ablation:
    """Train every variant with several seeds and write `ablation.md`, `.csv` and `.svg`.

    Completed training runs are reused, so that the same call resumes an interrupted ablation.

    Args:
        experiment: the full method, which must be CARAT: an `Experiment`, a nested mapping or a YAML file.
        store: a store or its folder, with the splits train, valid and test.
        out: output folder, new or of an interrupted ablation.
        seeds: number of consecutive seeds, starting with the experiment's.
        workers: number of parallel training runs, one core each.
        overwrite: replace an existing ablation.

    Returns:
        One row per variant, the full method first; see also `Ablation.to_frame`.

    Raises:
        ConfigError: the experiment is invalid, or its method is not CARAT.
        DataError: the store is damaged or lacks a split.
        RunError: the folder contains other files, is in use by another process, or a training run failed.

    Example:
        table = carat.ablate({"preset": "small"}, "demo-store", "ablation", seeds=2)
        table.to_frame().sort_values("difference")
    """
    experiment, folder = as_experiment(experiment), Path(out)
    opened = open_store(store)
    check_measurable(opened, "test")
    modalities = experiment.data.modalities or opened.modalities
    plan = {"store": opened.manifest.fingerprint, "experiment": experiment.model_dump()}
    changes = variants(experiment, modalities)
    jobs = {
        name: [_job(name, change, experiment, opened, seed) for seed in range(seeds)]
        for name, change in changes.items()
    }
    with claim_study(ABLATION, folder, plan, overwrite):
        write_experiment(folder, experiment)
        run_seeds(jobs.values(), folder, workers)
    opened = open_unchanged(opened.folder, opened.manifest.fingerprint)
    scored = {name: [read_scores(job, folder) for job in group] for name, group in jobs.items()}
    rows = [_row(name, scored[name], scored[FULL], opened) for name in changes]
    _write(rows, opened, jobs, folder)
    return Ablation(rows)


def _job(name: str, changes: Mapping[str, Any], experiment: Experiment, store: Store, seed: int) -> Job:
    values = merge(merge(experiment.model_dump(), changes), {"seed": experiment.seed + seed})
    slug = re.sub(r"[^\w+]+", "-", name.replace(" + ", "+"))
    try:
        return Job(slug, parse_experiment(values, name), store.folder, store.manifest.fingerprint)
    except ConfigError as error:
        raise ConfigError(f"variant {error}") from error


def _row(name: str, scored: Sequence[Scored], full: Sequence[Scored], store: Store) -> Row:
    rows = scored[0].rows
    shared = np.intersect1d(rows, full[0].rows)
    labels, groups = store.targets(), store.groups
    metrics = [compute_metrics(x.scores, x.predicted, labels[rows], store.label_names) for x in scored]
    corpora = None if store.corpora is None else store.corpora[rows]
    by_corpus = [
        metrics_by_corpus(x.scores, x.predicted, labels[rows], store.label_names, corpora) for x in scored
    ]
    test = paired_test(
        _on(scored, shared), _on(full, shared), labels[shared], groups[shared], "micro_f1", over_seeds=True
    )
    return Row(
        name,
        len(rows),
        {name: [float(getattr(m, name)) for m in metrics] for name in METRICS},
        [float(x.card.validation["micro_f1"] or 0) for x in scored],
        test.difference,
        test.interval,
        over_seeds(by_corpus),
    )


def _on(scored: Sequence[Scored], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Predictions of S seeds for some rows of the store, (S, N, L)."""
    return np.stack([x.predicted[np.isin(x.rows, rows)] for x in scored])


def _write(rows: Sequence[Row], store: Store, jobs: Mapping[str, Sequence[Job]], out: Path) -> None:
    write_atomically(out / "ablation.md", _markdown(rows, store, jobs, out))
    _seed_table(rows, jobs).to_csv(out / "ablation.csv")
    draw_differences({row.name: (row.difference, row.interval) for row in rows[1:]}, out / "ablation.svg")


def _seed_table(rows: Sequence[Row], jobs: Mapping[str, Sequence[Job]]) -> Table:
    """Build the table with one row per variant and seed, in full precision."""
    return Table.from_records(
        [
            {
                "variant": row.name,
                "seed": job.experiment.seed,
                "samples": row.samples,
                "validation_micro_f1": row.validation[i],
                **{metric: row.metrics[metric][i] for metric in METRICS},
                "difference": row.difference,
                "low": row.interval[0],
                "high": row.interval[1],
                **corpus_cells(row.corpora, i),
            }
            for row in rows
            for i, job in enumerate(jobs[row.name])
        ]
    )


def _variant_table(rows: Sequence[Row]) -> Table:
    """Build the table with one row per variant, averaged over the seeds; `full` has no difference."""
    columns = ["variant", "samples", *METRICS.values(), "difference", "95 % interval"]
    return Table(
        columns,
        [
            [
                row.name,
                row.samples,
                *(mean_and_spread(row.metrics[metric]) for metric in METRICS),
                None if row.name == FULL else signed(row.difference),
                None if row.name == FULL else in_brackets(row.interval, signed=True),
            ]
            for row in rows
        ],
    )


def _differences(experiment: Experiment) -> dict[str, Any]:
    """Settings in which an experiment differs from the paper's."""

    def changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        changes = {}
        for key, value in values.items():
            if isinstance(value, Mapping) and isinstance(defaults.get(key), Mapping):
                if nested := changed(value, defaults[key]):
                    changes[key] = nested
            elif key not in defaults or value != defaults[key]:
                changes[key] = value
        return changes

    return changed(experiment.model_dump(), Experiment().model_dump())


def _markdown(rows: Sequence[Row], store: Store, jobs: Mapping[str, Sequence[Job]], out: Path) -> str:
    full = jobs[FULL]
    seeds = ", ".join(str(job.experiment.seed) for job in full)
    runs = [read_environment(job, out) for group in jobs.values() for job in group]
    groups = len(set(store.groups[store.indices("test")].tolist()))
    about = (
        f"{len(store)} samples, fingerprint {store.manifest.fingerprint[:16]}; seeds {seeds}; test "
        "split, mean ± standard deviation over the seeds; epoch and threshold selected on validation. "
        f"Difference: test micro-F1 minus that of `{FULL}` on the samples that both can score, with "
        f"the 95 % interval of a paired bootstrap over {groups} groups and the seeds. `official: …` "
        "reproduces one deviation of the authors' released code from the paper (docs/concepts/method.md). "
        "The unused poolers only shift the random stream, so that row shows the variation due to chance. "
        "The released code's handling of non-finite values belongs to the recipe and is not ablated."
    )
    by_corpus = {row.name: row.corpora for row in rows}
    table = corpus_table("variant", by_corpus) if rows[0].corpora else None
    commit, processor = (distinct(x[key] for x in runs) for key in ("commit", "processor"))
    torch = distinct(x["packages"]["torch"] for x in runs)
    lines = [
        f"# Ablation of CARAT on {escape_markdown(store.manifest.name)}",
        "",
        textwrap.fill(about, 118, break_on_hyphens=False),
        "",
        f"Created by `carat ablate DIR/experiment.yaml --data STORE --out DIR --seeds {len(full)}`; the full "
        f"method is the paper's, except for `{json.dumps(_differences(full[0].experiment))}`.",
        f"Store: {escape_markdown('; '.join(store.manifest.notes)) or 'no notes'}.",
        f"Trained at commit {commit}; {processor}, torch {torch}, one core per training.",
        "",
        _variant_table(rows).to_markdown(),
        "",
        *(["## Corpora", "", CAPTION, "", table.to_markdown(), ""] if table is not None else []),
        "![Differences from the full method](ablation.svg)",
        "",
    ]
    return "\n".join(lines)
