"""Comparison of methods: tune, train with several seeds, evaluate, write the leaderboard."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.config.methods import RESERVED, find_method, method_names
from carat.data.store import Store, open_store
from carat.data.store.store import open_unchanged
from carat.data.summary import check_measurable
from carat.inference.predictor import Predictor
from carat.studies.jobs import (
    Arrays,
    Job,
    claim_study,
    read_validation,
    run_jobs,
    run_seeds,
    study_kind,
)
from carat.studies.leaderboard.evaluation import SelectedTrial, evaluate_methods
from carat.studies.leaderboard.missing_modalities import measure
from carat.studies.leaderboard.page import write_page
from carat.studies.leaderboard.result import Leaderboard
from carat.studies.leaderboard.tables import About, write_tables
from carat.studies.leaderboard.tuning import open_study
from carat.utils.errors import ConfigError, RunError
from carat.utils.logging import logger

JOURNAL = "tuning.journal"
PAGE = "leaderboard.html"
COMPARISON = study_kind(
    "comparison", JOURNAL, f"{JOURNAL}.lock", "leaderboard.md", "leaderboard.csv", "costs.csv", PAGE
)


def choose_methods(wanted: Sequence[str]) -> list[str]:
    """Resolve names of methods, in the order of the registry; `all` stands for every method.

    Raises:
        ConfigError: no method is given, a method is unknown, or its package cannot be imported.
    """
    if not wanted:
        raise ConfigError(f"--methods: specify at least one of {', '.join(method_names())}")
    _check_names(wanted, "--methods")
    return [name for name in method_names() if RESERVED in wanted or name in wanted]


def _check_names(names: Iterable[str], origin: str) -> None:
    try:
        for name in names:
            if name != RESERVED:
                find_method(name)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error


def experiments_of(
    methods: Sequence[str], preset: str, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Experiment]:
    """Build the experiment of each method before tuning.

    Args:
        methods: names of methods.
        preset: preset of every method.
        settings: overrides of the preset by method; those under `all` apply to every method, and a method's
            own overrides take precedence.

    Returns:
        Experiments by method.

    Raises:
        ConfigError: a key of `settings` is not a method, or a value is invalid.
    """
    _check_names(settings, "settings")
    return {
        name: load_experiment(
            preset=preset,
            overrides=merge(
                merge(settings.get("all", {}), settings.get(name, {})), {"method": {"name": name}}
            ),
        )
        for name in methods
    }


def compare(
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    methods: Sequence[str] = ("all",),
    preset: str = "small",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int = 5,
    budget: int = 1,
    workers: int = 1,
    overwrite: bool = False,
) -> Leaderboard:
    """Tune, train and evaluate methods equally, and write leaderboard.md, .csv, .html and costs.csv.

    Every method gets the same number of trials, which are compared on the validation split with the first
    seed; the best trial is then trained with every seed. Nothing is selected on the test split. Completed
    training runs are reused: the same call resumes an interrupted comparison, with the same results except
    for the costs of the runs that it trains.

    Args:
        store: a store or its folder, with the splits train, valid and test.
        out: output folder, new or of an interrupted comparison.
        methods: names of methods, or `all`.
        preset: preset of every method.
        settings: overrides of the preset by method; those under `all` apply to every method, and a method's
            own overrides take precedence.
        seeds: number of consecutive seeds, starting with the experiment's.
        budget: number of trials per method, the first of which has the preset's hyperparameters.
        workers: number of parallel training runs, one core each.
        overwrite: replace an existing comparison.

    Returns:
        One result per method, sorted by mean test micro-F1 in descending order; see `Leaderboard.to_frame`.

    Raises:
        ConfigError: a method or setting is unknown.
        DataError: the store is damaged or lacks a split.
        RunError: the folder contains other files, is in use by another process, or a training run failed.

    Source: paired bootstrap over groups and seeds; p-values corrected by Holm, "A simple sequentially
        rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979).

    Example:
        board = carat.compare("demo-store", "leaderboard", methods=["prior", "br"], seeds=2)
        board.to_frame()
    """
    folder, opened = Path(out), open_store(store)
    for split in ("train", "valid", "test"):
        check_measurable(opened, split)
    presets = experiments_of(choose_methods(methods), preset, settings or {})
    plan = {
        "store": opened.manifest.fingerprint,
        "preset": preset,
        "settings": dict(settings or {}),
        "budget": budget,
    }
    with claim_study(COMPARISON, folder, plan, overwrite):
        selected = _tune(presets, budget, seeds, opened, folder, workers)
        logger.info(f"training the selected trials: {len(selected) * seeds} training runs")
        run_seeds([trial.jobs for trial in selected], folder, workers)
        opened = open_unchanged(opened.folder, opened.manifest.fingerprint)
        results = evaluate_methods(selected, opened, folder)
        about = About.of(selected, opened, folder, preset, dict(settings or {}), budget)
        write_tables(results, about, folder)
        write_page(results, about, folder / PAGE)
    return Leaderboard(results)


def _tune(
    presets: Mapping[str, Experiment],
    budget: int,
    seeds: int,
    store: Store,
    out: Path,
    workers: int,
) -> list[SelectedTrial]:
    """Run the trials with the first seed, and select the best of each method on the validation split."""
    studies = {name: open_study(name, preset, budget, out / JOURNAL) for name, preset in presets.items()}
    trials = {
        name: [_job(name, number, x, store) for number, x in enumerate(study.experiments())]
        for name, study in studies.items()
    }
    if budget > 1:
        jobs = [job for group in trials.values() for job in group]
        logger.info(f"tuning: {len(jobs)} training runs")
        run_jobs(jobs, out, workers)
        for name, group in trials.items():
            for number, job in enumerate(group):
                studies[name].tell(number, _validation(job, out))
    selected = []
    for name, study in studies.items():
        best = study.best if budget > 1 else 0
        experiment = trials[name][best].experiment
        planned = [_job(name, best, experiment, store, seed, measure) for seed in range(seeds)]
        selected.append(SelectedTrial(name, planned, len(study.trials), study.trials[best]))
    return selected


def _job(
    method: str,
    trial: int,
    experiment: Experiment,
    store: Store,
    seed: int = 0,
    measurement: Callable[[Predictor, Store], Arrays] | None = None,
) -> Job:
    seeded = experiment.model_copy(update={"seed": experiment.seed + seed})
    return Job(f"{method}/trial{trial}", seeded, store.folder, store.manifest.fingerprint, measurement)


def _validation(job: Job, out: Path) -> float | None:
    """Validation micro-F1 of a trial; None if it failed."""
    try:
        value = read_validation(job, out)
    except RunError:
        return None
    return value if math.isfinite(value) else None
