"""Many trainings: planned, in parallel, and not repeated when they are finished."""

from __future__ import annotations

import json
import math
import multiprocessing
import shutil
import time
import zipfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.config.base import first_difference
from carat.config.experiment import Experiment
from carat.data.store import Store, open_store
from carat.evaluation.thresholds import apply_thresholds
from carat.runs import card as run
from carat.utils.errors import CaratError, RunError
from carat.utils.locking import LOCK, lock
from carat.utils.parallel.child import exit_with_parent

if TYPE_CHECKING:  # PyTorch is for the workers
    from carat.inference.predictor import Predictor

SCORES = "scores"
RUNS = "runs"
PLAN = "plan.json"

Say = Callable[[str], None]


Arrays = dict[str, NDArray[Any]]


def score_test(predictor: Predictor, store: Store) -> Arrays:
    """What most campaigns want of a trained method: rows (N,) and scores (N, L) of the test split."""
    rows, scores, _ = predictor.score(store, "test")
    return {"rows": rows, "scores": scores}


@dataclass(frozen=True, eq=False)
class Job:
    """One training and what is measured of it."""

    name: str
    """Of its folder, below which the seeds lie."""
    experiment: Experiment
    store: Path
    measure: Callable[[Predictor, Store], Arrays] | None = score_test
    """What to keep of the trained method, a function of a module; None: nothing but the run itself."""

    @property
    def called(self) -> str:
        """For people."""
        return f"{self.name}, seed {self.experiment.seed}"

    def folder(self, out: Path) -> Path:
        """Of its run."""
        return out / RUNS / self.name / f"seed{self.experiment.seed}"

    def scores_file(self, out: Path) -> Path:
        """Of what was measured."""
        return out / SCORES / self.name / f"seed{self.experiment.seed}.npz"


@dataclass(frozen=True)
class Scored:
    """What a finished job says of the test split."""

    rows: NDArray[np.int64]
    """(N,) rows of the store that could be scored, ascending."""
    scores: NDArray[np.float32]
    """(N, L)."""
    predicted: NDArray[np.bool_]
    """(N, L), by the thresholds found on validation."""
    card: run.RunCard
    arrays: Arrays
    """All that was measured."""


def run_jobs(jobs: Sequence[Job], out: Path, workers: int, say: Say = lambda line: None) -> dict[Job, str]:
    """Do the jobs that are not finished yet, each on one core; results do not depend on `workers`.

    A job is finished when its run folder holds the same experiment on the same data and what it measures is
    written. Jobs that fail are tried again at the next call. When this process ends, however it does, its
    workers end too.

    Args:
        jobs: what to do.
        out: folder of all runs and scores.
        workers: trainings at a time.
        say: called with a line of progress for each job.

    Returns:
        Why jobs failed, in one line each.

    Raises:
        RunError: the first job failed, so that the others most likely would, or a process was killed.
    """
    stores = {path: open_store(path) for path in {job.store for job in jobs}}
    todo = [job for job in jobs if not _is_finished(job, stores[job.store], out)]
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} of {len(jobs)} trainings are finished already")
    failed: dict[Job, str] = {}
    started = time.monotonic()
    for done, (job, problem) in enumerate(_in_parallel(todo, out, workers), start=1):
        if problem and job is jobs[0]:
            raise RunError(f"{job.called}: {problem}")
        if problem:
            failed[job] = problem
        minutes = (time.monotonic() - started) / done * (len(todo) - done) / 60
        left = f", about {math.ceil(minutes)} min left" if done < len(todo) else ""
        outcome = problem or f"validation micro-F1 {read_validation(job, out):.4f}"
        say(f"[{done}/{len(todo)}] {job.called}: {outcome}{left}")
    return failed


def run_seeds(jobs: Iterable[Sequence[Job]], out: Path, workers: int, say: Say = lambda line: None) -> None:
    """Do all jobs, given as one sequence of seeds for each setting: the first seed of all settings first.

    Args: see `run_jobs`.

    Raises:
        RunError: any of them failed.
    """
    by_seed = [job for same in zip(*jobs, strict=True) for job in same]
    failed = run_jobs(by_seed, out, workers, say)
    if failed:
        job, problem = next(iter(failed.items()))
        raise RunError(f"{len(failed)} of {len(by_seed)} trainings failed, first {job.called}: {problem}")


def read_scores(job: Job, out: Path) -> Scored:
    """The test scores of a finished job."""
    arrays = read_arrays(job, out)
    rows, scores = arrays["rows"], arrays["scores"]
    card, _ = run.read_run(job.folder(out))
    predicted = apply_thresholds(scores, np.array(list(card.thresholds.values())))
    return Scored(rows, scores, predicted, card, arrays)


def read_arrays(job: Job, out: Path) -> Arrays:
    """What a finished job has measured."""
    with np.load(job.scores_file(out), allow_pickle=False) as arrays:
        return dict(arrays)


def read_validation(job: Job, out: Path) -> float:
    """Validation micro-F1 of a finished job; nan where undefined."""
    value = run.read_run(job.folder(out))[0].validation["micro_f1"]
    return float("nan") if value is None else value


def read_environment(job: Job, out: Path) -> dict[str, Any]:
    """Versions, machine, commit and seconds of a finished job."""
    found: dict[str, Any] = json.loads((job.folder(out) / run.ENVIRONMENT).read_text(encoding="utf-8"))
    return found


def distinct(values: Iterable[Any]) -> str:
    """What occurs among values, for a sentence."""
    return ", ".join(sorted({"unknown" if value is None else str(value) for value in values}))


@contextmanager
def claim(out: Path, plan: dict[str, Any], own: Collection[str], overwrite: bool) -> Iterator[None]:
    """A folder for a campaign, made or holding the same one, and for this process alone.

    Args:
        out: the folder.
        plan: what must be the same, as plain data.
        own: names of all files and folders that the campaign makes.
        overwrite: replace a campaign.

    Raises:
        RunError: it holds something else, or another process is at work in it.
    """
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is no folder")
    out.mkdir(parents=True, exist_ok=True)
    with lock(out):
        _claim(out, plan, own, overwrite)
        yield


def _claim(out: Path, plan: dict[str, Any], own: Collection[str], overwrite: bool) -> None:
    file = out / PLAN
    there = sorted(path.name for path in out.iterdir() if path.name != LOCK)
    foreign = [name for name in there if name not in own and not name.endswith(run.UNFINISHED)]
    if foreign or (there and not file.is_file()):
        what = f"holds '{(foreign or there)[0]}', which was not made by this command"
        raise RunError(f"{out}: {what}; choose another folder")
    begun = (out / SCORES).exists() or any((out / RUNS).rglob(run.EXPERIMENT))
    if file.is_file() and not overwrite and begun:
        _compare(file, plan)
    else:
        for name in there:
            shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
    run.write_json(file, plan)


def _compare(file: Path, plan: dict[str, Any]) -> None:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: cannot be read ({error}); --overwrite starts anew") from error
    other = first_difference(found, json.loads(json.dumps(plan)))
    if other:
        raise RunError(f"{file.parent}: was started with another {other}; --overwrite starts anew")


def _in_parallel(jobs: Sequence[Job], out: Path, workers: int) -> Iterator[tuple[Job, str]]:
    if not jobs:
        return
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        min(workers, len(jobs)), spawn, initializer=_prepare, max_tasks_per_child=1
    ) as pool:  # the peak memory of a training is not to be that of another
        waiting = {pool.submit(_work, job, out): job for job in jobs}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        except BrokenProcessPool as error:
            raise RunError(
                f"a training process was killed, perhaps for want of memory: try fewer --workers; what is "
                f"finished in {out} is kept"
            ) from error
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in multiprocessing.active_children():
                child.kill()
            if isinstance(error, KeyboardInterrupt):
                raise KeyboardInterrupt(
                    f"what is finished in {out} is kept; the same command goes on"
                ) from None
            raise


def _prepare() -> None:
    """In every worker: one core, and an end when the parent ends."""
    import torch

    torch.set_num_threads(1)
    exit_with_parent()


def _work(job: Job, out: Path) -> str:
    """Train and score; why it failed, or nothing."""
    from carat.inference.predictor import load
    from carat.training.train import train
    from carat.utils.memory import reset_peak

    store, folder = open_store(job.store), job.folder(out)
    reset_peak()
    try:
        if not _is_trained(job, store, out):
            begun = run.is_begun(folder, job.experiment, store.manifest.fingerprint)
            train(job.experiment, store, folder, overwrite=not begun)
        try:
            predictor = load(folder, "cpu")
        except RunError:  # damaged since
            train(job.experiment, store, folder, overwrite=True)
            predictor = load(folder, "cpu")
        arrays = job.measure(predictor, store) if job.measure else None
    except CaratError as error:
        return f"failed: {error}"
    except Exception as error:  # one training must not end the others
        return f"failed unexpectedly: {type(error).__name__} {' '.join(str(error).split())[:200]}"
    if arrays is not None:
        file = job.scores_file(out)
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_name(f".{file.name}")
        np.savez(temporary, **arrays)  # type: ignore[arg-type]  # numpy's stub is wrong here
        temporary.replace(file)
    for name in (run.CHECKPOINTS, run.LOGS):  # weights and metrics are in the run itself
        shutil.rmtree(folder / name, ignore_errors=True)
    return ""


def _is_trained(job: Job, store: Store, out: Path) -> bool:
    try:
        card, experiment = run.read_run(job.folder(out))
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
