"""What each part of CARAT is worth, and what each quirk of the released code does."""

from __future__ import annotations

import csv
import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.config.base import merge, parse
from carat.config.carat import OFFICIAL, OFFICIAL_TOGETHER, CaratConfig
from carat.config.experiment import Experiment
from carat.data.store import Store, open_store
from carat.evaluation.bootstrap import Interval, paired_test
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.report import draw_differences, in_brackets, mean_and_spread, signed
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

FULL = "full"
ABLATION = study_kind("ablation", EXPERIMENT, "ablation.md", "ablation.csv", "ablation.svg")
METRICS = {"micro_f1": "micro-F1", "macro_f1": "macro-F1", "accuracy": "accuracy (Jaccard)"}


@dataclass(frozen=True)
class Row:
    """One variant: its metrics by seed on the test split, and how it differs from the full method."""

    name: str
    samples: int
    """Test samples that it can score: those that have one of its modalities."""
    metrics: Mapping[str, Sequence[float]]
    """By name, one value per seed."""
    validation: Sequence[float]
    """Validation micro-F1 by seed."""
    difference: float
    """Test micro-F1 minus that of the full method, on the samples that both score; mean over the seeds."""
    interval: Interval
    """95 %, by paired bootstrap over groups and seeds."""


def variants(experiment: Experiment, modalities: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What each variant changes in the experiment, by name; variants that change nothing are left out.

    Args:
        experiment: the full method.
        modalities: those it uses.

    Raises:
        ConfigError: another method than CARAT.
    """
    method = experiment.method
    if not isinstance(method, CaratConfig):
        raise ConfigError(f"carat ablate takes CARAT apart, not {method.name}")
    decisive = method.weights.beta
    found: dict[str, dict[str, Any]] = {
        FULL: {},
        "no label-wise features": {"method": {"label_wise": False}},
        "no reconstruction": {"method": {"levels": 0, "weights": {"original": decisive}}},
        "only first level": {"method": {"levels": 1, "weights": {"alpha": decisive}}},
        "no contrast": {"method": {"weights": {"contrast": 0.0}}},
        "no prototypes": {"method": {"prototypes": False}},
        "no aggregation": {"method": {"aggregation": False}},
        "no sample shuffle": {"method": {"shuffle": {"samples": False}}},
        "no modality shuffle": {"method": {"shuffle": {"modalities": False}}},
    }
    for size in (1, 2):
        if size < len(modalities):
            for chosen in combinations(modalities, size):
                found[f"only {' + '.join(chosen)}"] = {"data": {"modalities": list(chosen)}}
    found |= {f"official: {quirk}": changes for quirk, changes in OFFICIAL.items()}
    found["official: all of these"] = OFFICIAL_TOGETHER
    own = experiment.model_dump()
    return {name: changes for name, changes in found.items() if name == FULL or merge(own, changes) != own}


def ablate(
    experiment: Experiment,
    store: str | Path,
    out: str | Path,
    *,
    seeds: int = 3,
    workers: int = 1,
    overwrite: bool = False,
) -> list[Row]:
    """Train every variant with several seeds and write `ablation.md`, `.csv` and `.svg`.

    Finished trainings are not repeated: after an interruption the same call resumes.

    Args:
        experiment: the full method.
        store: with splits train, valid and test.
        out: folder to create or resume.
        seeds: number of seeds, counted from the experiment's.
        workers: number of trainings at a time, one core each.
        overwrite: replace another ablation.

    Raises:
        DataError: the store is damaged or lacks a split.
        RunError: the folder holds something else, another process works in it, or a training failed.
    """
    folder = Path(out)
    opened = open_store(store)
    opened.indices("test")
    modalities = experiment.data.modalities or opened.modalities
    plan = {"store": opened.manifest.fingerprint, "experiment": experiment.model_dump()}
    chosen = variants(experiment, modalities)
    jobs = {
        name: [_job(name, changes, experiment, Path(store), seed) for seed in range(seeds)]
        for name, changes in chosen.items()
    }
    with claim_study(ABLATION, folder, plan, overwrite):
        write_experiment(folder, experiment)
        run_seeds(jobs.values(), folder, workers)
    scored = {name: [read_scores(job, folder) for job in group] for name, group in jobs.items()}
    rows = [_row(name, scored[name], scored[FULL], opened) for name in chosen]
    _write(rows, opened, jobs, folder)
    return rows


def _job(name: str, changes: Mapping[str, Any], experiment: Experiment, store: Path, seed: int) -> Job:
    values = merge(merge(experiment.model_dump(), changes), {"seed": experiment.seed + seed})
    slug = re.sub(r"[^\w+]+", "-", name.replace(" + ", "+"))
    try:
        return Job(slug, parse(Experiment, values, name), store)
    except ConfigError as error:
        raise ConfigError(f"variant {error}") from error


def _row(name: str, scored: Sequence[Scored], full: Sequence[Scored], store: Store) -> Row:
    rows = scored[0].rows
    shared = np.intersect1d(rows, full[0].rows)
    labels, groups = np.asarray(store.labels), store.groups
    found = [compute_metrics(x.scores, x.predicted, labels[rows], store.label_names) for x in scored]
    test = paired_test(
        _on(scored, shared), _on(full, shared), labels[shared], groups[shared], "micro_f1", over_seeds=True
    )
    return Row(
        name,
        len(rows),
        {metric: [float(getattr(m, metric)) for m in found] for metric in METRICS},
        [float(x.card.validation["micro_f1"] or 0) for x in scored],
        test.difference,
        test.interval,
    )


def _on(scored: Sequence[Scored], rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Predictions (S, N, L) on some rows."""
    return np.stack([x.predicted[np.isin(x.rows, rows)] for x in scored])


def _write(rows: Sequence[Row], store: Store, jobs: Mapping[str, Sequence[Job]], out: Path) -> None:
    write_atomically(out / "ablation.md", _markdown(rows, store, jobs, out))
    with (out / "ablation.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(
            ["variant", "seed", "samples", "validation_micro_f1", *METRICS, "difference", "low", "high"]
        )
        for row in rows:
            for i, job in enumerate(jobs[row.name]):
                values = [row.metrics[metric][i] for metric in METRICS]
                seed = job.experiment.seed
                writer.writerow(
                    [row.name, seed, row.samples, row.validation[i], *values, row.difference, *row.interval]
                )
    draw_differences({row.name: (row.difference, row.interval) for row in rows[1:]}, out / "ablation.svg")


def _differences(experiment: Experiment) -> dict[str, Any]:
    """What an experiment sets otherwise than the paper's."""

    def differing(own: Mapping[str, Any], usual: Mapping[str, Any]) -> dict[str, Any]:
        found = {}
        for key, value in own.items():
            if isinstance(value, Mapping) and isinstance(usual.get(key), Mapping):
                if below := differing(value, usual[key]):
                    found[key] = below
            elif key not in usual or value != usual[key]:
                found[key] = value
        return found

    return differing(experiment.model_dump(), Experiment().model_dump())


def _markdown(rows: Sequence[Row], store: Store, jobs: Mapping[str, Sequence[Job]], out: Path) -> str:
    full = jobs[FULL]
    seeds = ", ".join(str(job.experiment.seed) for job in full)
    runs = [read_environment(job, out) for group in jobs.values() for job in group]
    groups = len(set(store.groups[store.indices("test")].tolist()))
    about = (
        f"{len(store)} samples, fingerprint {store.manifest.fingerprint[:16]}; seeds {seeds}; test "
        "split, mean ± standard deviation over the seeds; epoch and threshold chosen on validation. "
        f"Difference: test micro-F1 minus that of `{FULL}` on the samples that both can score, with "
        f"the 95 % interval of a paired bootstrap over {groups} groups and the seeds. `official: …` "
        "sets one quirk of the authors' released code (docs/method.md); the poolers change nothing "
        "but the random numbers, and show how much is chance; what the released code does to non- "
        "finite values is a matter of the recipe, and nothing to a store without any."
    )
    commit, processor = (distinct(x[key] for x in runs) for key in ("commit", "processor"))
    torch = distinct(x["packages"]["torch"] for x in runs)
    lines = [
        f"# Ablation of CARAT on {store.manifest.name}",
        "",
        textwrap.fill(about, 118, break_on_hyphens=False),
        "",
        f"Made by `carat ablate DIR/experiment.yaml --data STORE --out DIR --seeds {len(full)}`; the full "
        f"method is the paper's but for `{json.dumps(_differences(full[0].experiment))}`.",
        f"Store: {'; '.join(store.manifest.notes) or 'no notes'}.",
        f"Trained at commit {commit}; {processor}, torch {torch}, one core per training.",
        "",
        f"| | samples | {' | '.join(METRICS.values())} | difference | 95 % interval |",
        "|---" * (len(METRICS) + 4) + "|",
    ]
    for row in rows:
        cells = [row.name, str(row.samples), *(mean_and_spread(row.metrics[metric]) for metric in METRICS)]
        own = row.name == FULL
        cells += ["", ""] if own else [signed(row.difference), in_brackets(row.interval, signed=True)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", "![Differences to the full method](ablation.svg)", ""])
