"""Comparison on one store: tune, train with several seeds, evaluate, write the leaderboard."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from carat.config.experiment import Experiment
from carat.data.store import Store
from carat.data.store.store import open_unchanged
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
from carat.studies.leaderboard.protocol import Protocol
from carat.studies.leaderboard.result import Leaderboard
from carat.studies.leaderboard.tables import About, write_tables
from carat.studies.leaderboard.tuning import open_study
from carat.utils.errors import RunError
from carat.utils.logging import logger

JOURNAL = "tuning.journal"
PAGE = "leaderboard.html"
COMPARISON = study_kind(
    "comparison", JOURNAL, f"{JOURNAL}.lock", "leaderboard.md", "leaderboard.csv", "costs.csv", PAGE
)


@dataclass(frozen=True)
class StoreResult:
    """Results on one store."""

    board: Leaderboard
    about: About | None
    """Provenance; None if every method failed."""
    failed: Mapping[str, str]
    """One-line error message of each method that failed; it is not in the leaderboard."""


def compare_on(
    store: Store,
    out: Path,
    protocol: Protocol,
    workers: int,
    *,
    overwrite: bool = False,
    keep_going: bool = False,
) -> StoreResult:
    """Tune, train and evaluate methods on a store, and write its leaderboard.

    Args:
        store: the data.
        out: output folder, new or of an interrupted comparison.
        protocol: methods, and how they are compared.
        workers: number of parallel training runs, one core each.
        overwrite: replace an existing comparison.
        keep_going: leave methods out that fail, instead of ending with an error. If all of them fail, no
            leaderboard is written.

    Raises:
        DataError: the store was replaced.
        RunError: see `carat.compare`.
    """
    plan = {"store": store.manifest.fingerprint, **protocol.plan}
    with claim_study(COMPARISON, out, plan, overwrite):
        selected = _tune(protocol, store, out, workers, keep_going)
        logger.info(f"training the selected trials: {len(selected) * protocol.seeds} training runs")
        groups = [trial.jobs for trial in selected]
        problems = run_seeds(groups, out, workers, keep_going=keep_going)
        failed = {
            trial.method: next(problems[x] for x in trial.jobs if x in problems).removeprefix("failed: ")
            for trial in selected
            if not problems.keys().isdisjoint(trial.jobs)
        }
        selected = [trial for trial in selected if trial.method not in failed]
        if not selected:
            return StoreResult(Leaderboard(), None, failed)
        store = open_unchanged(store.folder, store.manifest.fingerprint)
        results = evaluate_methods(selected, store, out)
        about = About.of(selected, store, out, protocol, failed)
        write_tables(results, about, out)
        write_page(results, about, out / PAGE)
    return StoreResult(Leaderboard(results), about, failed)


def _tune(protocol: Protocol, store: Store, out: Path, workers: int, keep_going: bool) -> list[SelectedTrial]:
    """Run the trials with the first seed, and select the best of each method on the validation split."""
    budget = protocol.budget
    studies = {
        name: open_study(name, preset, budget, out / JOURNAL) for name, preset in protocol.presets.items()
    }
    trials = {
        name: [_job(name, number, x, store) for number, x in enumerate(study.experiments())]
        for name, study in studies.items()
    }
    if budget > 1:
        jobs = [job for group in trials.values() for job in group]
        logger.info(f"tuning: {len(jobs)} training runs")
        run_jobs(jobs, out, workers, keep_going=keep_going)
        for name, group in trials.items():
            for number, job in enumerate(group):
                studies[name].tell(number, _validation(job, out))
    selected = []
    for name, study in studies.items():
        best = study.best if budget > 1 else 0
        experiment = trials[name][best].experiment
        planned = [_job(name, best, experiment, store, seed, measure) for seed in range(protocol.seeds)]
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
