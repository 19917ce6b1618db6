"""Trainings of a study: planned, run in parallel, and not repeated once they are finished."""

from __future__ import annotations

import io
import json
import math
import shutil
import time
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.config.experiment import Experiment
from carat.data.store import Store, open_store
from carat.evaluation.thresholds import apply_thresholds
from carat.runs.card import RunCard, read_run
from carat.runs.folder import CHECKPOINTS, ENVIRONMENT, EXPERIMENT, LOGS, RUN, is_begun
from carat.utils.errors import CaratError, RunError
from carat.utils.files import replace_file, write_json
from carat.utils.logging import logger
from carat.utils.output_folder import FolderKind, claim, has_key, plan_difference
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Report, TaskFunction

if TYPE_CHECKING:  # only workers import PyTorch
    from carat.inference.predictor import Predictor

SCORES = "scores"
RUNS = "runs"
PLAN = "plan.json"

Arrays = dict[str, NDArray[Any]]


def score_test(predictor: Predictor, store: Store) -> Arrays:
    """Rows (N,) and scores (N, L) of the test split, which most studies measure."""
    rows, scores, _ = predictor.score(store, "test")
    return {"rows": rows, "scores": scores}


@dataclass(frozen=True, eq=False)
class Job:
    """One training, and what is measured once it is finished."""

    name: str
    """Folder of its runs, one for each seed."""
    experiment: Experiment
    store: Path
    measure: Callable[[Predictor, Store], Arrays] | None = score_test
    """Arrays to compute from the trained model, by a function of a module; None if the run suffices."""

    @property
    def title(self) -> str:
        """Display name."""
        return f"{self.name}, seed {self.experiment.seed}"

    def folder(self, out: Path) -> Path:
        """Folder of the run."""
        return out / RUNS / self.name / f"seed{self.experiment.seed}"

    def scores_file(self, out: Path) -> Path:
        """File of what was measured."""
        return out / SCORES / self.name / f"seed{self.experiment.seed}.npz"


@dataclass(frozen=True)
class Scored:
    """Test scores of a finished job."""

    rows: NDArray[np.int64]
    """(N,) rows of the store that could be scored, ascending."""
    scores: NDArray[np.float32]
    """(N, L)."""
    predicted: NDArray[np.bool_]
    """(N, L), by the thresholds chosen on validation."""
    card: RunCard
    arrays: Arrays
    """Everything that was measured."""


def run_jobs(jobs: Sequence[Job], out: Path, workers: int) -> dict[Job, str]:
    """Run the jobs that are not finished yet, each on one core; results do not depend on `workers`.

    A job is finished when its run folder holds the same experiment on the same data and its measurements are
    written. Jobs that failed are tried again at the next call. The workers end with this process, however it
    ends.

    Args:
        jobs: trainings to run.
        out: folder of all runs and scores.
        workers: number of trainings at a time.

    Returns:
        The problem of each job that failed, in one line.

    Raises:
        RunError: the first job failed, so that the others most likely would, or a process was killed.
    """
    stores = {path: open_store(path) for path in {job.store for job in jobs}}
    todo = [job for job in jobs if not _is_finished(job, stores[job.store], out)]
    if len(todo) < len(jobs):
        logger.info(f"{len(jobs) - len(todo)} of {len(jobs)} trainings are finished already")
    failed: dict[Job, str] = {}
    started = time.monotonic()
    # one process per training, so that peak memory is measured per run
    results = run_tasks(_prepare_worker, (out,), todo, workers, fresh_processes=True, attempts=1)
    try:
        with closing(results):
            for done, result in enumerate(results, start=1):
                job = todo[result.index]
                if result.died:
                    raise RunError(
                        f"{job.title}: {result.problem}, perhaps because memory ran out: try fewer "
                        f"--workers; finished trainings in {out} are kept"
                    )
                problem = f"failed: {result.problem}" if result.problem else ""
                if problem and job is jobs[0]:
                    raise RunError(f"{job.title}: {problem}")
                if problem:
                    failed[job] = problem
                minutes = (time.monotonic() - started) / done * (len(todo) - done) / 60
                left = f", about {math.ceil(minutes)} min left" if done < len(todo) else ""
                outcome = problem or f"validation micro-F1 {read_validation(job, out):.4f}"
                logger.info(f"[{done}/{len(todo)}] {job.title}: {outcome}{left}")
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"finished trainings in {out} are kept; the same command resumes") from None
    return failed


def run_seeds(jobs: Iterable[Sequence[Job]], out: Path, workers: int) -> None:
    """Run the jobs of several settings, the first seed of every setting first.

    Args:
        jobs: for each setting one job per seed.
        out, workers: see `run_jobs`.

    Raises:
        RunError: any of them failed.
    """
    by_seed = [job for same in zip(*jobs, strict=True) for job in same]
    failed = run_jobs(by_seed, out, workers)
    if failed:
        job, problem = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(by_seed)} trainings failed, first {job.title}: {problem}")


def read_scores(job: Job, out: Path) -> Scored:
    """The test scores of a finished job."""
    arrays = read_arrays(job, out)
    rows, scores = arrays["rows"], arrays["scores"]
    card, _ = read_run(job.folder(out))
    predicted = apply_thresholds(scores, np.array(list(card.thresholds.values())))
    return Scored(rows, scores, predicted, card, arrays)


def read_arrays(job: Job, out: Path) -> Arrays:
    """Everything that a finished job has measured."""
    with np.load(job.scores_file(out), allow_pickle=False) as arrays:
        return dict(arrays)


def read_validation(job: Job, out: Path) -> float:
    """Validation micro-F1 of a finished job; nan where undefined."""
    value = read_run(job.folder(out))[0].validation["micro_f1"]
    return float("nan") if value is None else value


def read_environment(job: Job, out: Path) -> dict[str, Any]:
    """Versions, machine, commit and seconds of a finished job."""
    environment: dict[str, Any] = json.loads((job.folder(out) / ENVIRONMENT).read_text(encoding="utf-8"))
    return environment


def distinct(values: Iterable[Any]) -> str:
    """The distinct values, joined for a sentence."""
    return ", ".join(sorted({"unknown" if value is None else str(value) for value in values}))


def study_kind(name: str, *files: str) -> FolderKind:
    """The folder of a study: its plan, its trainings, and the files that it writes.

    Args:
        name: noun for messages.
        files: names of the files that the study writes.
    """
    runs = tuple(f"{RUNS}/*/{pattern}" for pattern in (*RUN.markers, *RUN.patterns))
    return FolderKind(
        name=name,
        markers=(PLAN,),
        patterns=(*files, *runs, f"{SCORES}/*.npz"),
        recognizes=lambda folder: _has_results(folder) or has_key(folder / PLAN, "store"),
        has_results=_has_results,
    )


def _has_results(out: Path) -> bool:
    return (out / SCORES).exists() or any((out / RUNS).rglob(EXPERIMENT))


@contextmanager
def claim_study(kind: FolderKind, out: Path, plan: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Hold a folder for a study, which is new or has the same plan; see `carat.utils.output_folder.claim`.

    Args:
        kind: see `study_kind`.
        out: the folder.
        plan: JSON-compatible values; a study is resumed only if they are the same.
        overwrite: replace a study.

    Raises:
        RunError: the folder holds something else, or another process works in it.
    """
    file = out / PLAN
    with claim(kind, out, overwrite=overwrite, difference=lambda: plan_difference(file, plan)):
        write_json(file, plan)
        yield


def _prepare_worker(out: Path) -> TaskFunction:
    """Set up a worker that trains and measures."""
    from carat.inference.predictor import load
    from carat.training.train import train
    from carat.utils.memory import reset_peak

    def work(job: Job, report: Report) -> None:
        store, folder = open_store(job.store), job.folder(out)
        reset_peak()
        if not _is_trained(job, store, out):
            begun = is_begun(folder, job.experiment, store.manifest.fingerprint)
            train(job.experiment, store, folder, overwrite=not begun)
        try:
            predictor = load(folder, "cpu")
        except RunError:  # damaged since
            train(job.experiment, store, folder, overwrite=True)
            predictor = load(folder, "cpu")
        if job.measure is not None:
            content = io.BytesIO()
            np.savez(content, **job.measure(predictor, store))  # type: ignore[arg-type]  # numpy's stub is wrong
            replace_file(job.scores_file(out), content.getbuffer())
        for name in (CHECKPOINTS, LOGS):  # weights and metrics are in the run itself
            shutil.rmtree(folder / name, ignore_errors=True)

    return work


def _is_trained(job: Job, store: Store, out: Path) -> bool:
    try:
        card, experiment = read_run(job.folder(out))
    except CaratError:
        return False
    return experiment == job.experiment and card.fingerprint == store.manifest.fingerprint


def _is_finished(job: Job, store: Store, out: Path) -> bool:
    try:
        if job.measure is not None:
            read_arrays(job, out)
    except (CaratError, OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    return _is_trained(job, store, out)
