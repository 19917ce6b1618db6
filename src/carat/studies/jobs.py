"""Training runs of a study: planned, run in parallel, and reused when complete."""

from __future__ import annotations

import io
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.config.experiment import Experiment
from carat.data.arrays import ArrayFile
from carat.data.store import Store
from carat.data.store.store import open_unchanged
from carat.evaluation.thresholds import apply_thresholds
from carat.runs.card import RunCard, has_current_origin, read_run
from carat.runs.folder import CHECKPOINTS, ENVIRONMENT, EXPERIMENT, LOGS, RUN, is_begun
from carat.utils.errors import CaratError, DataError, RunError
from carat.utils.files import replace_file, write_json
from carat.utils.logging import logger
from carat.utils.output_folder import FolderKind, claim, has_key, plan_difference
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Report, TaskFunction
from carat.utils.reading import read_json

if TYPE_CHECKING:  # only workers import PyTorch
    from carat.inference.predictor import Predictor

SCORES = "scores"
RUNS = "runs"
PLAN = "plan.json"

Arrays = dict[str, NDArray[Any]]


def score_test(predictor: Predictor, store: Store) -> Arrays:
    """Score the test split, the default measurement of a job.

    Returns:
        `rows` (N,) of the store and `scores` (N, L).
    """
    rows, scores, _ = predictor.score(store, "test")
    return {"rows": rows, "scores": scores}


@dataclass(frozen=True, eq=False)
class Job:
    """One training run and the measurements taken of its model."""

    name: str
    """Name of the folder of its runs, one per seed."""
    experiment: Experiment
    store: Path
    fingerprint: str
    """Fingerprint of the store when the job was planned."""
    measure: Callable[[Predictor, Store], Arrays] | None = score_test
    """Module-level function that computes arrays from the trained model; None for no measurements."""

    @property
    def display_name(self) -> str:
        """Display name."""
        return f"{self.name}, seed {self.experiment.seed}"

    def folder(self, out: Path) -> Path:
        """Folder of the run."""
        return out / RUNS / self.name / f"seed{self.experiment.seed}"

    def scores_file(self, out: Path) -> Path:
        """File of the measurements."""
        return out / SCORES / self.name / f"seed{self.experiment.seed}.npz"


@dataclass(frozen=True)
class Scored:
    """Test scores of a finished job."""

    rows: NDArray[np.int64]
    """(N,), scored rows of the store, ascending."""
    scores: NDArray[np.float32]
    """(N, L)."""
    predicted: NDArray[np.bool_]
    """(N, L), predictions at the thresholds selected on validation."""
    card: RunCard
    arrays: Arrays
    """All measurements of the job."""


def run_jobs(jobs: Sequence[Job], out: Path, workers: int, *, keep_going: bool = False) -> dict[Job, str]:
    """Run all incomplete jobs, each on one core; results do not depend on `workers`.

    A job is complete when its run folder contains the same experiment on the same data, started from the same
    weights, and its measurements were written. Failed jobs are retried at the next call. Workers exit with
    this process.

    Args:
        jobs: jobs to run.
        out: folder of all runs and scores.
        workers: number of parallel training runs.
        keep_going: run the others even if the first job fails.

    Returns:
        One-line error message of each failed job.

    Raises:
        RunError: the first job failed (unless `keep_going`), so that the others most likely would too, a job
            failed for want of room or memory, or a worker was killed.
    """
    todo = [job for job in jobs if not _is_complete(job, out)]
    if len(todo) < len(jobs):
        logger.info(f"{len(jobs) - len(todo)} of {len(jobs)} training runs are already complete")
    failed: dict[Job, str] = {}
    started = time.monotonic()
    # one process per run, so that peak memory is measured per run
    results = run_tasks(_prepare_worker, (out,), todo, workers, fresh_processes=True, attempts=1)
    try:
        with closing(results):
            for done, result in enumerate(results, start=1):
                job = todo[result.index]
                if result.died:
                    raise RunError(
                        f"{job.display_name}: {result.problem}, possibly out of memory; try fewer --workers. "
                        f"Completed training runs in {out} are kept"
                    )
                problem = f"failed: {result.problem}" if result.problem else ""
                if result.environmental:
                    raise RunError(
                        f"{job.display_name}: {problem}; completed training runs in {out} are kept, rerun "
                        "the same command to resume"
                    )
                if problem and job is jobs[0] and not keep_going:
                    raise RunError(f"{job.display_name}: {problem}")
                if problem:
                    failed[job] = problem
                minutes = (time.monotonic() - started) / done * (len(todo) - done) / 60
                left = f", about {math.ceil(minutes)} min left" if done < len(todo) else ""
                outcome = problem or f"validation micro-F1 {read_validation(job, out):.4f}"
                logger.info(f"[{done}/{len(todo)}] {job.display_name}: {outcome}{left}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"completed training runs in {out} are kept; rerun the same command to resume"
        ) from None
    return failed


def run_seeds(
    jobs: Iterable[Sequence[Job]], out: Path, workers: int, *, keep_going: bool = False
) -> dict[Job, str]:
    """Run jobs with several seeds, starting with the first seed of every configuration.

    Args:
        jobs: one job per seed for each configuration.
        out, workers, keep_going: see `run_jobs`.

    Returns:
        One-line error message of each failed job.

    Raises:
        RunError: a job failed (unless `keep_going`), or see `run_jobs`.
    """
    by_seed = [job for group in zip(*jobs, strict=True) for job in group]
    failed = run_jobs(by_seed, out, workers, keep_going=keep_going)
    if failed and not keep_going:
        job, problem = next(iter(failed.items()))
        raise RunError(
            f"{len(failed)} of {len(by_seed)} training runs failed, first {job.display_name}: {problem}"
        )
    return failed


def read_scores(job: Job, out: Path) -> Scored:
    """Read the test scores of a completed job."""
    arrays = read_arrays(job, out)
    rows, scores = arrays["rows"], arrays["scores"]
    card, _ = read_run(job.folder(out))
    predicted = apply_thresholds(scores, np.array(list(card.thresholds.values())))
    return Scored(rows, scores, predicted, card, arrays)


def read_arrays(job: Job, out: Path) -> Arrays:
    """Read all measurements of a completed job.

    Raises:
        DataError: they cannot be read.
    """
    return dict(ArrayFile(job.scores_file(out)))


def read_validation(job: Job, out: Path) -> float:
    """Read the validation micro-F1 of a completed job; NaN if undefined."""
    value = read_run(job.folder(out))[0].validation["micro_f1"]
    return float("nan") if value is None else value


def read_environment(job: Job, out: Path) -> dict[str, Any]:
    """Read versions, machine, commit and costs of a completed job."""
    environment: dict[str, Any] = read_json(job.folder(out) / ENVIRONMENT, RunError)
    return environment


def distinct(values: Iterable[Any]) -> str:
    """Join the distinct values, sorted and separated by commas; None becomes "unknown"."""
    return ", ".join(sorted({"unknown" if value is None else str(value) for value in values}))


def study_kind(name: str, *files: str) -> FolderKind:
    """Describe the output folder of a study: its plan, training runs and result files.

    Args:
        name: kind of study, a noun for messages.
        files: names of the result files.
    """
    runs = tuple(f"{RUNS}/*/{pattern}" for pattern in (*RUN.markers, *RUN.patterns))
    return FolderKind(
        name=name,
        markers=(PLAN,),
        patterns=(*files, *runs, f"{SCORES}/*.npz", f"{SCORES}/*/*.npz"),
        recognizes=lambda folder: has_key(folder / PLAN, "store"),
        has_results=has_results,
    )


def has_results(out: Path) -> bool:
    """Return whether the output folder of a study has a training run or measurements."""
    return (out / SCORES).exists() or any((out / RUNS).rglob(EXPERIMENT))


@contextmanager
def claim_study(kind: FolderKind, out: Path, plan: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Claim the output folder of a study, new or with the same plan; see `carat.utils.output_folder.claim`.

    Args:
        kind: see `study_kind`.
        out: output folder.
        plan: JSON-compatible values that identify the study; it is resumed only if they are equal.
        overwrite: replace an existing study.

    Raises:
        RunError: the folder contains other files or another study, or is in use by another process.
    """
    file = out / PLAN
    with claim(kind, out, overwrite=overwrite, difference=lambda: plan_difference(file, plan)):
        write_json(file, plan)
        yield


def _prepare_worker(out: Path) -> TaskFunction:
    """Set up a worker process that trains and measures."""
    from carat.inference.loading import load
    from carat.training.train import train
    from carat.utils.memory import reset_peak

    def work(job: Job, report: Report) -> None:
        store, folder = open_unchanged(job.store, job.fingerprint), job.folder(out)
        reset_peak()
        if not _is_trained(job, out):
            begun = is_begun(folder, job.experiment, job.fingerprint)
            train(job.experiment, store, folder, overwrite=not begun)
        try:
            predictor = load(folder, "cpu", calibrated=False)
        except RunError:  # corrupted since the training finished
            train(job.experiment, store, folder, overwrite=True)
            predictor = load(folder, "cpu", calibrated=False)
        if predictor.card.fingerprint != job.fingerprint:  # its processes open the store themselves
            raise DataError(f"{job.store}: replaced during the training; rerun the command on one store")
        if job.measure is not None:
            content = io.BytesIO()
            np.savez(content, **job.measure(predictor, store))  # type: ignore[arg-type]  # numpy's stub is wrong
            replace_file(job.scores_file(out), content.getbuffer())
        for name in (CHECKPOINTS, LOGS):  # weights and metrics are in the run itself
            shutil.rmtree(folder / name, ignore_errors=True)

    return work


def _is_trained(job: Job, out: Path) -> bool:
    try:
        card, experiment = read_run(job.folder(out))
    except CaratError:
        return False
    same = experiment == job.experiment and card.fingerprint == job.fingerprint
    return same and has_current_origin(card)


def _is_complete(job: Job, out: Path) -> bool:
    try:
        if job.measure is not None:
            arrays = read_arrays(job, out)
            if len(arrays["rows"]) != len(arrays["scores"]):
                return False
    except (CaratError, OSError, KeyError, TypeError):
        return False
    return _is_trained(job, out)
