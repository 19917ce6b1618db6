"""From a store to a leaderboard: tune, train with several seeds, judge, write."""

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
from carat.studies.leaderboard.result import Leaderboard
from carat.studies.leaderboard.standings import SelectedTrial, evaluate_methods
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
    """Names of methods, in the order of the registry; `all` stands for every method.

    Raises:
        ConfigError: an unknown method, or one whose package fails, or none.
    """
    if not wanted:
        raise ConfigError(f"--methods: name one at least of {', '.join(method_names())}")
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
    """The experiment that each method starts with.

    Args:
        methods: their names.
        preset: of every method.
        settings: changes to the preset by method; those under `all` apply to every method, and a method's own
            take precedence.

    Raises:
        ConfigError: a key of `settings` is no method, or a value is wrong.
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
    """Tune, train and judge methods alike, and write leaderboard.md, .csv, .html and costs.csv.

    Every method gets the same number of trials, judged on validation by the experiment's first seed, and the
    best settings are trained with every seed. The test split is scored, not chosen by. Finished trainings are
    not repeated: after an interruption the same call resumes and gives the same numbers, except for the costs
    of what it trains.

    Args:
        store: a store or its folder, with splits train, valid and test.
        out: folder to create or resume.
        methods: by name, or `all`.
        preset: where every method starts.
        settings: see `experiments_of`.
        seeds: number of seeds, counted from the experiment's.
        budget: trials of each method, the first of which are the settings it starts with.
        workers: number of trainings at a time, one core each.
        overwrite: replace another comparison.

    Returns:
        One result per method, the best mean test micro-F1 first; see `Leaderboard.to_frame`.

    Raises:
        ConfigError: a method or setting is unknown.
        DataError: the store is damaged or lacks a split.
        RunError: the folder holds something else, another process works in it, or a training failed.

    Source: paired bootstrap over groups and seeds; p-values corrected by Holm, Scandinavian Journal of
        Statistics 6 (1979).

    Example:
        board = carat.compare("demo-store", "leaderboard", methods=["prior", "br"], seeds=2)
        board.to_frame()
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
        standings = evaluate_methods(finals, opened, folder)
        about = About.of(finals, opened, folder, preset, dict(settings or {}), budget)
        write_tables(standings, about, folder)
        write_page(standings, about, folder / PAGE)
    return Leaderboard(standings)


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
