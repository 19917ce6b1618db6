"""Many trainings: finished ones are not repeated, failures are said, nothing of others is touched."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.inference.predictor import load
from carat.studies.jobs import Job, claim, read_scores, run_jobs
from carat.utils.errors import RunError
from carat.utils.locking import lock
from tests.conftest import TINY


def job(store: Store, name: str = "a", seed: int = 0, **training: float) -> Job:
    overrides = TINY | {"seed": seed, "training": TINY["training"] | {"epochs": 1} | training}  # type: ignore[operator]
    return Job(name, load_experiment(overrides=overrides), store.folder)


def test_finished_jobs_are_not_repeated(here: list[str], store: Store, tmp_path: Path) -> None:
    said: list[str] = []
    jobs = [job(store, seed=seed) for seed in (0, 1)]
    assert run_jobs(jobs[:1], tmp_path, 1) == {}
    assert run_jobs(jobs, tmp_path, 1, said.append) == {}
    assert here == ["a, seed 0", "a, seed 1"]
    assert said[0] == "1 of 2 trainings are finished already"
    assert said[1].startswith("[1/1] a, seed 1: validation micro-F1 0.")
    scored = read_scores(jobs[0], tmp_path)
    report = load(jobs[0].folder(tmp_path)).evaluate(store, "test")
    assert scored.card.thresholds == report.thresholds
    rows, scores, _ = load(jobs[0].folder(tmp_path)).score(store, "test")
    assert np.array_equal(scored.rows, rows)
    assert np.array_equal(scored.scores, scores)
    assert (scored.predicted == (scores > list(report.thresholds.values()))).all()


def test_lost_scores_are_made_again_without_training(here: list[str], store: Store, tmp_path: Path) -> None:
    one = job(store)
    run_jobs([one], tmp_path, 1)
    weights = one.folder(tmp_path) / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    one.scores_file(tmp_path).unlink()
    run_jobs([one], tmp_path, 1)
    assert one.scores_file(tmp_path).is_file()
    assert weights.stat().st_mtime_ns == before


def test_changed_experiment_and_unfinished_run_are_trained_again(
    here: list[str], store: Store, tmp_path: Path
) -> None:
    run_jobs([job(store)], tmp_path, 1)
    run_jobs([job(store, learning_rate=0.01)], tmp_path, 1)
    (job(store).folder(tmp_path) / "run.json").unlink()
    run_jobs([job(store, learning_rate=0.01)], tmp_path, 1)
    assert len(here) == 3


def test_a_failure_is_said_and_the_others_go_on(here: list[str], store: Store, tmp_path: Path) -> None:
    wild, tame = job(store, "wild", learning_rate=1e30), job(store, "tame")
    failed = run_jobs([tame, wild, job(store, "more")], tmp_path, 1)
    assert list(failed) == [wild]
    assert "training diverged" in failed[wild]
    assert len(here) == 3


def test_a_failure_of_the_first_ends_it(here: list[str], store: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"wild, seed 0: failed: .*training diverged"):
        run_jobs([job(store, "wild", learning_rate=1e30), job(store, "tame")], tmp_path, 1)
    assert len(here) == 1


@pytest.mark.slow
def test_in_processes_of_their_own(store: Store, tmp_path: Path) -> None:
    jobs = [job(store, seed=seed) for seed in (0, 1)]
    assert run_jobs(jobs, tmp_path / "two", 2) == {}
    for one in jobs:
        assert one.scores_file(tmp_path / "two").is_file()
        assert not (one.folder(tmp_path / "two") / "checkpoints").exists()


def test_damaged_files_of_a_finished_job_are_made_again(
    here: list[str], store: Store, tmp_path: Path
) -> None:
    one = job(store)
    for file in (one.scores_file(tmp_path), one.folder(tmp_path) / "weights.safetensors"):
        assert run_jobs([one], tmp_path, 1) == {}
        file.write_bytes(file.read_bytes()[:99])
        one.scores_file(tmp_path).write_bytes(b"PK")
        assert run_jobs([one], tmp_path, 1) == {}
        assert len(read_scores(one, tmp_path).rows) > 0


def test_a_run_that_was_ended_before_it_began_is_no_obstacle(
    here: list[str], store: Store, tmp_path: Path
) -> None:
    one = job(store)
    one.folder(tmp_path).mkdir(parents=True)
    (one.folder(tmp_path) / ".environment.json.unfinished").touch()
    assert run_jobs([one], tmp_path, 1) == {}


def test_only_one_process_works_in_a_folder(tmp_path: Path) -> None:
    with lock(tmp_path):
        code = f"import pathlib, carat.utils.locking as c\nwith c.lock(pathlib.Path({str(tmp_path)!r})): pass"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert other.returncode
    assert "another carat is at work in it" in other.stderr
    with lock(tmp_path):
        pass


def claimed(out: Path, overwrite: bool = False, **plan: object) -> None:
    """Claim a folder and leave it."""
    with claim(out, plan, {"plan.json", "runs", "scores"}, overwrite):
        pass


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    out = tmp_path / "o"
    same = {"store": "x", "experiment": Experiment().model_dump()}
    claimed(out, **same)
    claimed(out, **same | {"store": "y"})  # nothing was begun
    claimed(out, **same)
    (out / "scores").mkdir()
    claimed(out, **same)
    with pytest.raises(RunError, match=r"was started with another store; --overwrite starts anew"):
        claimed(out, **same | {"store": "y"})
    claimed(out, True, **same | {"store": "y"})
    assert not (out / "scores").exists()
    (out / "scores").mkdir()
    (out / "plan.json").write_text("{")
    with pytest.raises(RunError, match=r"plan\.json: cannot be read"):
        claimed(out, **same)
    for name in ("thesis.tex", ".git"):
        (out / name).write_text("precious")
        for overwrite in (False, True):
            with pytest.raises(RunError, match=rf"holds '{name}', which was not made by this command"):
                claimed(out, overwrite, **same)
        (out / name).unlink()


def test_a_folder_at_work_is_not_claimed(tmp_path: Path) -> None:
    with claim(tmp_path, {"store": "x"}, {"plan.json"}, overwrite=False):
        for overwrite in (False, True):
            with pytest.raises(RunError, match="another carat is at work in it"):
                claimed(tmp_path, overwrite, store="y")
    claimed(tmp_path, store="y")


def test_a_folder_with_a_training_is_kept(tmp_path: Path) -> None:
    """Also before anything is scored, as when a comparison is killed while it tunes."""
    out = tmp_path / "o"
    claimed(out, store="x")
    begun = out / "runs" / "br" / "trial1" / "seed0" / "experiment.yaml"
    begun.parent.mkdir(parents=True)
    begun.write_text("{}")
    claimed(out, store="x")
    assert begun.exists()
    with pytest.raises(RunError, match="was started with another store"):
        claimed(out, store="y")
