"""Many trainings: finished ones are not repeated, failures are said, nothing of others is touched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat import campaign
from carat.campaign import Job, claim, read_scores, run_jobs
from carat.config import Experiment, load_experiment
from carat.data.store import Store
from carat.errors import RunError
from carat.predictor import load
from tests.conftest import TINY


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Do jobs in this process; the names of those that were done."""
    done = []

    def serially(jobs, out, workers):  # type: ignore[no-untyped-def]
        for job in jobs:
            done.append(job.called)
            yield job, campaign._work(job, out)

    monkeypatch.setattr(campaign, "_in_parallel", serially)
    return done


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
    failed = run_jobs([wild, tame], tmp_path, 1)
    assert list(failed) == [wild]
    assert "training diverged" in failed[wild]
    assert tame.scores_file(tmp_path).is_file()


def test_in_processes_of_their_own(store: Store, tmp_path: Path) -> None:
    jobs = [job(store, seed=seed) for seed in (0, 1)]
    assert run_jobs(jobs, tmp_path / "two", 2) == {}
    for one in jobs:
        assert one.scores_file(tmp_path / "two").is_file()
        assert not (one.folder(tmp_path / "two") / "checkpoints").exists()


def test_a_folder_is_claimed_once(tmp_path: Path) -> None:
    plan = {"data": "x", "experiment": Experiment().model_dump()}
    claim(tmp_path / "o", plan, overwrite=False)
    claim(tmp_path / "o", plan, overwrite=False)
    (tmp_path / "o" / "runs").mkdir()
    with pytest.raises(RunError, match="was started with another data; --overwrite starts anew"):
        claim(tmp_path / "o", plan | {"data": "y"}, overwrite=False)
    claim(tmp_path / "o", plan | {"data": "y"}, overwrite=True)
    assert not (tmp_path / "o" / "runs").exists()
    (tmp_path / "o" / "plan.json").write_text("{")
    with pytest.raises(RunError, match=r"plan\.json: cannot be read"):
        claim(tmp_path / "o", plan, overwrite=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="was not made by this command; choose another folder"):
            claim(tmp_path / "other", plan, overwrite=overwrite)
