"""Jobs of a study: reuse of complete runs, failures, and protection of output folders."""

from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store, open_store
from carat.data.synthetic import make_synthetic
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.studies.jobs import (
    Arrays,
    Job,
    claim_study,
    read_arrays,
    read_scores,
    run_jobs,
    score_test,
    study_kind,
)
from carat.training.train import TrainedRun, train
from carat.utils.errors import RunError
from carat.utils.locking import lock
from carat.utils.parallel import local
from carat.utils.parallel.tasks import TaskResult
from tests.conftest import TINY


def job(store: Store, name: str = "a", seed: int = 0, **training: Any) -> Job:
    overrides = TINY | {"seed": seed, "training": TINY["training"] | {"epochs": 1} | training}  # type: ignore[operator]
    return Job(name, load_experiment(overrides=overrides), store.folder, store.manifest.fingerprint)


def test_complete_jobs_are_not_repeated(
    in_this_process: list[Job], logged: list[str], store: Store, tmp_path: Path
) -> None:
    jobs = [job(store, seed=seed) for seed in (0, 1)]
    assert run_jobs(jobs[:1], tmp_path, 1) == {}
    assert [job.display_name for job in in_this_process] == ["a, seed 0"]
    logged.clear()
    assert run_jobs(jobs, tmp_path, 1) == {}
    assert [job.display_name for job in in_this_process] == ["a, seed 0", "a, seed 1"]
    assert logged[0] == "1 of 2 training runs are already complete"
    assert logged[1].startswith("[1/1] a, seed 1: validation micro-F1 0.")
    scored = read_scores(jobs[0], tmp_path)
    report = load(jobs[0].folder(tmp_path), calibrated=False).evaluate(store, "test")
    assert scored.card.thresholds == report.thresholds
    rows, scores, _ = load(jobs[0].folder(tmp_path), calibrated=False).score(store, "test")
    assert np.array_equal(scored.rows, rows)
    assert np.array_equal(scored.scores, scores)
    assert (scored.predicted == (scores > list(report.thresholds.values()))).all()


def test_missing_scores_are_recomputed_without_training(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    one = job(store)
    run_jobs([one], tmp_path, 1)
    weights = one.folder(tmp_path) / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    one.scores_file(tmp_path).unlink()
    run_jobs([one], tmp_path, 1)
    assert one.scores_file(tmp_path).is_file()
    assert weights.stat().st_mtime_ns == before


def test_runs_that_started_from_other_weights_are_retrained(
    in_this_process: list[Job], store: Store, trained: TrainedRun, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(trained.folder, tmp_path / "source"))
    one = job(store, init_from=source)
    run_jobs([one], tmp_path / "out", 1)
    first = read_scores(one, tmp_path / "out").card
    assert first.origin is not None
    assert first.origin.run == str(source)
    run_jobs([one], tmp_path / "out", 1)
    assert len(in_this_process) == 1
    shutil.rmtree(source)
    run_jobs([one], tmp_path / "out", 1)
    assert len(in_this_process) == 1
    retrained = train(job(store, seed=5).experiment, store, source)
    run_jobs([one], tmp_path / "out", 1)
    assert len(in_this_process) == 2
    second = read_scores(one, tmp_path / "out").card
    assert second.origin is not None
    assert second.origin.weights == retrained.card.digests["weights.safetensors"] != first.origin.weights


def test_changed_experiment_and_incomplete_run_are_retrained(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    run_jobs([job(store)], tmp_path, 1)
    run_jobs([job(store, learning_rate=0.01)], tmp_path, 1)
    (job(store).folder(tmp_path) / "run.json").unlink()
    run_jobs([job(store, learning_rate=0.01)], tmp_path, 1)
    assert len(in_this_process) == 3


def test_failure_is_reported_and_other_jobs_continue(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    wild, tame = job(store, "wild", learning_rate=1e30), job(store, "tame")
    failed = run_jobs([tame, wild, job(store, "more")], tmp_path, 1)
    assert list(failed) == [wild]
    assert "training diverged" in failed[wild]
    assert len(in_this_process) == 3


def test_failure_of_the_first_job_ends_the_study(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"wild, seed 0: failed: .*training diverged"):
        run_jobs([job(store, "wild", learning_rate=1e30), job(store, "tame")], tmp_path, 1)
    assert len(in_this_process) == 1


def test_full_disk_ends_the_study_with_what_is_finished(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    jobs = [job(store), replace(job(store, "b"), measure=fill_disk), job(store, "c")]
    message = r"b, seed 0: failed: OSError \[Errno 28\] full: 'x'; completed training runs in .* are kept"
    with pytest.raises(RunError, match=message):
        run_jobs(jobs, tmp_path, 1)
    assert len(in_this_process) == 2
    assert len(read_scores(jobs[0], tmp_path).rows) > 0


def fill_disk(predictor: Predictor, store: Store) -> Arrays:
    raise OSError(errno.ENOSPC, "full", "x")


def test_store_replaced_since_planning_is_refused(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    copy = open_store(shutil.copytree(store.folder, tmp_path / "store"))
    jobs = [job(copy), job(copy, "b")]
    run_jobs(jobs[:1], tmp_path / "o", 1)
    make_synthetic(copy.folder, samples=211, seed=4, missing=0.2, overwrite=True)
    failed = run_jobs(jobs, tmp_path / "o", 1)
    assert list(failed) == [jobs[1]]
    assert "store: replaced while in use: fingerprint" in failed[jobs[1]]
    assert not jobs[1].folder(tmp_path / "o").exists()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_failure_ends_the_workers(workers: int, store: Store, tmp_path: Path) -> None:
    for number, measure in enumerate((fill_disk, interrupt)):
        jobs = [replace(job(store, name), measure=measure) for name in "abc"]
        with pytest.raises(RunError, match=r"[ab], seed 0: (failed: OSError|its worker ended)"):
            run_jobs(jobs, tmp_path / str(number), workers)
        assert multiprocessing.active_children() == []


def interrupt(predictor: Predictor, store: Store) -> Arrays:
    raise KeyboardInterrupt


@pytest.mark.slow
def test_every_job_runs_in_its_own_process(store: Store, tmp_path: Path) -> None:
    jobs = [replace(job(store, seed=seed), measure=measure_process) for seed in (0, 1)]
    assert run_jobs(jobs, tmp_path / "two", 2) == {}
    assert run_jobs(jobs, tmp_path / "one", 1) == {}
    for one in jobs:
        assert not (one.folder(tmp_path / "two") / "checkpoints").exists()
        parallel, serial = (read_arrays(one, tmp_path / name) for name in ("two", "one"))
        assert np.array_equal(parallel["scores"], serial["scores"])
    processes = {int(read_arrays(one, tmp_path / "one")["process"]) for one in jobs}
    assert len(processes) == 2  # required to measure peak memory per run


def measure_process(predictor: Predictor, store: Store) -> Arrays:
    return score_test(predictor, store) | {"process": np.array(os.getpid())}


def measure_and_die(predictor: Predictor, store: Store) -> Arrays:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


@pytest.mark.slow
def test_killed_worker_ends_the_study_and_its_run_is_kept(store: Store, tmp_path: Path) -> None:
    killed = replace(job(store), measure=measure_and_die)
    with pytest.raises(
        RunError,
        match=r"a, seed 0: its worker was killed by signal 9, possibly out of memory; try fewer",
    ):
        run_jobs([killed, job(store, "b")], tmp_path, 1)
    assert (killed.folder(tmp_path) / "run.json").is_file()
    assert multiprocessing.active_children() == []


def test_interruption_message_names_the_folder(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> Iterator[TaskResult]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(local, "run_tasks", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"completed training runs in .* are kept; rerun the same command to resume"
    ):
        run_jobs([job(store)], tmp_path, 1)


def test_corrupt_files_of_a_complete_job_are_rewritten(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    one = job(store)
    for file in (one.scores_file(tmp_path), one.folder(tmp_path) / "weights.safetensors"):
        assert run_jobs([one], tmp_path, 1) == {}
        file.write_bytes(file.read_bytes()[:99])
        one.scores_file(tmp_path).write_bytes(b"PK")
        assert run_jobs([one], tmp_path, 1) == {}
        one.scores_file(tmp_path).unlink()
        os.mkfifo(one.scores_file(tmp_path))
        assert run_jobs([one], tmp_path, 1) == {}
        np.savez(one.scores_file(tmp_path), rows=np.arange(3), scores=np.ones((2, 6)))
        assert run_jobs([one], tmp_path, 1) == {}
        assert len(read_scores(one, tmp_path).rows) > 0


def test_run_folder_without_experiment_is_reused(
    in_this_process: list[Job], store: Store, tmp_path: Path
) -> None:
    one = job(store)
    one.folder(tmp_path).mkdir(parents=True)
    (one.folder(tmp_path) / ".environment.json.unfinished").touch()
    assert run_jobs([one], tmp_path, 1) == {}


def test_folder_is_locked_for_other_processes(tmp_path: Path) -> None:
    with lock(tmp_path):
        code = f"import pathlib, carat.utils.locking as c\nwith c.lock(pathlib.Path({str(tmp_path)!r})): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode
    assert "in use by another carat process" in other.stderr
    with lock(tmp_path):
        pass


STUDY = study_kind("study", "result.md")


def claimed(out: Path, overwrite: bool = False, **plan: object) -> None:
    """Claim a folder and leave it."""
    with claim_study(STUDY, out, plan, overwrite):
        pass


def test_folder_is_claimed_for_one_plan(tmp_path: Path) -> None:
    out = tmp_path / "o"
    same = {"store": "x", "experiment": Experiment().model_dump()}
    claimed(out, **same)
    claimed(out, **same | {"store": "y"})  # no results yet
    claimed(out, **same)
    (out / "scores").mkdir()
    claimed(out, **same)
    with pytest.raises(RunError, match=r"holds a study with another store already; --overwrite replaces it"):
        claimed(out, **same | {"store": "y"})
    claimed(out, True, **same | {"store": "y"})
    assert not (out / "scores").exists()
    (out / "scores").mkdir()
    (out / "plan.json").write_text("{")
    with pytest.raises(RunError, match="exists and is not a carat study"):
        claimed(out, True, **same)
    (out / "plan.json").write_text('{"store": "x"}')
    for name in ("thesis.tex", ".git"):
        (out / name).write_text("precious")
        for overwrite in (False, True):
            with pytest.raises(RunError, match=rf"holds '{name}', which is not part of a carat study"):
                claimed(out, overwrite, **same)
        assert (out / name).read_text() == "precious"
        (out / name).unlink()


def test_plan_file_of_another_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text('{"terraform": 1}')
    for overwrite in (False, True):
        with pytest.raises(RunError, match="exists and is not a carat study"):
            claimed(tmp_path, overwrite, store="x")
    assert (tmp_path / "plan.json").read_text() == '{"terraform": 1}'


def test_study_killed_during_setup_can_be_restarted(tmp_path: Path) -> None:
    (tmp_path / ".plan.json.unfinished").write_text('{"sto')
    claimed(tmp_path, store="x")
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]


def test_locked_study_is_not_claimed(tmp_path: Path) -> None:
    with claim_study(STUDY, tmp_path, {"store": "x"}, overwrite=False):
        for overwrite in (False, True):
            with pytest.raises(RunError, match="in use by another carat process"):
                claimed(tmp_path, overwrite, store="y")
    claimed(tmp_path, store="y")


def test_locked_run_within_a_study_is_not_deleted(tmp_path: Path) -> None:
    claimed(tmp_path, store="x")
    run = tmp_path / "runs" / "br" / "seed0"
    run.mkdir(parents=True)
    (run / "experiment.yaml").write_text("{}")
    with lock(run), pytest.raises(RunError, match="seed0: in use by another carat process"):
        claimed(tmp_path, True, store="y")
    assert (run / "experiment.yaml").read_text() == "{}"
    (run / "notes.txt").write_text("mine")
    claimed(tmp_path, store="x")  # nothing is deleted
    with pytest.raises(
        RunError, match=r"holds 'runs/br/seed0/notes\.txt', which is not part of a carat study"
    ):
        claimed(tmp_path, True, store="y")
    (run / "notes.txt").unlink()
    claimed(tmp_path, True, store="y")
    assert not run.exists()


def test_study_with_an_unfinished_run_is_kept(tmp_path: Path) -> None:
    """Even before any scores exist, as when a comparison is killed during tuning."""
    out = tmp_path / "o"
    claimed(out, store="x")
    begun = out / "runs" / "br" / "trial1" / "seed0" / "experiment.yaml"
    begun.parent.mkdir(parents=True)
    begun.write_text("{}")
    claimed(out, store="x")
    assert begun.exists()
    with pytest.raises(RunError, match="holds a study with another store"):
        claimed(out, store="y")
