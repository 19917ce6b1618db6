"""From a store to a leaderboard: tune, train with several seeds, judge, write."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carat.config.base import merge
from carat.config.baselines import METHOD_SECTIONS
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store, open_store
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
from carat.studies.leaderboard.missing_modalities import measure
from carat.studies.leaderboard.page import write_page
from carat.studies.leaderboard.standings import MethodResult, SelectedTrial, stand
from carat.studies.leaderboard.tables import About, write_tables
from carat.studies.leaderboard.tuning import open_study
from carat.utils.errors import ConfigError, RunError, did_you_mean
from carat.utils.logging import logger

JOURNAL = "tuning.journal"
PAGE = "leaderboard.html"
COMPARISON = study_kind(
    "comparison", JOURNAL, f"{JOURNAL}.lock", "leaderboard.md", "leaderboard.csv", "costs.csv", PAGE
)


def choose_methods(wanted: Sequence[str]) -> list[str]:
    """The methods by name, in the order of the registry; `all` are all of them.

    Raises:
        ConfigError: unknown, or none.
    """
    for name in wanted:
        if name != "all" and name not in METHOD_SECTIONS:
            hint = did_you_mean(name, METHOD_SECTIONS) or f"; known: {', '.join(METHOD_SECTIONS)}"
            raise ConfigError(f"--methods: unknown method '{name}'{hint}")
    if not wanted:
        raise ConfigError(f"--methods: name one at least of {', '.join(METHOD_SECTIONS)}")
    return [name for name in METHOD_SECTIONS if "all" in wanted or name in wanted]


def experiments_of(
    methods: Sequence[str], preset: str, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Experiment]:
    """Where each method starts.

    Args:
        methods: by name.
        preset: of all of them.
        settings: what differs, by method; under `all` for all of them. A method's own wins.

    Raises:
        ConfigError: a key of `settings` is no method, or a value is wrong.
    """
    for name in settings:
        if name != "all" and name not in METHOD_SECTIONS:
            raise ConfigError(f"settings: unknown method '{name}'{did_you_mean(name, METHOD_SECTIONS)}")
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
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    methods: Sequence[str] = ("all",),
    preset: str = "small",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int = 5,
    budget: int = 1,
    workers: int = 1,
    overwrite: bool = False,
) -> list[MethodResult]:
    """Tune, train and judge methods alike, and write leaderboard.md, .csv, .html and costs.csv.

    Every method gets the same number of trials, judged on validation by the experiment's first seed, and the
    best settings are trained with every seed. The test split is scored, not chosen by. Finished trainings are
    not repeated: after an interruption the same call resumes and gives the same numbers, except for the costs
    of what it trains.

    Args:
        store: with splits train, valid and test.
        out: folder to create or resume.
        methods: by name, or `all`.
        preset: where every method starts.
        settings: see `experiments_of`.
        seeds: number of seeds, counted from the experiment's.
        budget: trials of each method, the first of which are the settings it starts with.
        workers: number of trainings at a time, one core each.
        overwrite: replace another comparison.

    Raises:
        ConfigError: a method or setting is unknown.
        DataError: the store is damaged or lacks a split.
        RunError: the folder holds something else, another process works in it, or a training failed.
    """
    folder, path, opened = Path(out), Path(store), open_store(store)
    for split in ("train", "valid", "test"):
        opened.indices(split)
    starts = experiments_of(choose_methods(methods), preset, settings or {})
    plan = {
        "store": opened.manifest.fingerprint,
        "preset": preset,
        "settings": dict(settings or {}),
        "budget": budget,
    }
    with claim_study(COMPARISON, folder, plan, overwrite):
        finals = _tune(starts, budget, seeds, path, folder, workers)
        logger.info(f"with the chosen settings: {len(finals) * seeds} trainings")
        run_seeds([final.jobs for final in finals], folder, workers)
        standings = stand(finals, opened, folder)
        about = About.of(finals, opened, folder, preset, dict(settings or {}), budget)
        write_tables(standings, about, folder)
        write_page(standings, about, folder / PAGE)
    return standings


def _tune(
    starts: Mapping[str, Experiment],
    budget: int,
    seeds: int,
    store: Path,
    out: Path,
    workers: int,
) -> list[SelectedTrial]:
    """Try settings on validation with the first seed, and plan the best of each method with every seed."""
    studies = {name: open_study(name, start, budget, out / JOURNAL) for name, start in starts.items()}
    trials = {
        name: [_job(name, number, tried, store) for number, tried in enumerate(study.experiments())]
        for name, study in studies.items()
    }
    if budget > 1:
        jobs = [job for tried in trials.values() for job in tried]
        logger.info(f"tuning: {len(jobs)} trainings")
        run_jobs(jobs, out, workers)
        for name, tried in trials.items():
            for number, job in enumerate(tried):
                studies[name].tell(number, _validation(job, out))
    finals = []
    for name, study in studies.items():
        best = study.best if budget > 1 else 0
        chosen = trials[name][best].experiment
        planned = [_job(name, best, chosen, store, seed, measure) for seed in range(seeds)]
        finals.append(SelectedTrial(name, planned, len(study.trials), study.trials[best]))
    return finals


def _job(
    method: str,
    trial: int,
    experiment: Experiment,
    store: Path,
    seed: int = 0,
    measured: Callable[[Predictor, Store], Arrays] | None = None,
) -> Job:
    seeded = experiment.model_copy(update={"seed": experiment.seed + seed})
    return Job(f"{method}/trial{trial}", seeded, store, measured)


def _validation(job: Job, out: Path) -> float | None:
    """Micro-F1 of a trial; None if it failed."""
    try:
        value = read_validation(job, out)
    except RunError:
        return None
    return value if math.isfinite(value) else None
