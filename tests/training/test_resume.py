"""Trainings that are killed, interrupted or short of room, and go on."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.runs.card import read_run
from carat.runs.folder import CARD, CHECKPOINTS, EXPERIMENT, METRICS, WEIGHTS
from carat.training import checkpoints
from carat.training import train as training
from carat.training.checkpoints import Checkpoints
from carat.training.lightning_module import TrainingModule
from carat.training.train import TrainedRun, train
from carat.utils.errors import ConfigError, Interrupted, RunError
from carat.utils.locking import lock


class KilledError(Exception):
    """Stands for a kill -9: nothing of carat's catches it."""


@pytest.fixture(scope="module")
def experiment(tiny: Experiment) -> Experiment:
    """With everything that has a state: a running mean, gradients of two batches, patience."""
    changes = {
        "data": {"batch_size": 16},
        "training": {
            "epochs": 3,
            "ema_decay": 0.9,
            "modality_dropout": 0.2,
            "accumulate": 2,
            "early_stopping": 3,
            "checkpoint_every": 3,
        },
    }
    return load_experiment(overrides=merge(tiny.model_dump(), changes))


@pytest.fixture(scope="module")
def whole(store: Store, experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """The training that nothing disturbed."""
    return train(experiment, store, tmp_path_factory.mktemp("whole") / "run")


def without_progress(lines: list[str]) -> list[str]:
    """Messages other than the line of each epoch."""
    return [line for line in lines if not line.startswith("epoch ")]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (WEIGHTS, METRICS, CARD)}


def die(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int, error: BaseException) -> None:
    """Let a method raise instead of doing its work for the `at`-th time."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise error
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, counting)


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [
        (TrainingModule, "training_step", 1),
        (TrainingModule, "training_step", 6),
        (Checkpoints, "on_train_batch_end", 8),
        (Checkpoints, "on_train_batch_end", 13),
        (TrainingModule, "validation_step", 2),
        (TrainingModule, "end_validation", 2),
        (Checkpoints, "on_train_epoch_end", 2),
        (checkpoints, "replace_file", 5),
        (TrainingModule, "training_step", 27),
        (training, "_finish", 1),
        (training, "write_card", 1),
    ],
)
def test_a_killed_training_ends_as_if_nothing_had_happened(
    owner: Any,
    name: str,
    at: int,
    store: Store,
    experiment: Experiment,
    whole: TrainedRun,
    logged: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        die(patched, owner, name, at, KilledError())
        with pytest.raises(KilledError):
            train(experiment, store, tmp_path / "run")
    logged.clear()
    train(experiment, store, tmp_path / "run")
    assert contents(tmp_path / "run") == contents(whole.folder)
    assert len(list((tmp_path / "run" / CHECKPOINTS).iterdir())) == 1
    assert not (tmp_path / "run" / ".lock").exists()
    assert len(without_progress(logged)) == (0 if (name, at) == ("training_step", 1) else 1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_state(
    number: int,
    store: Store,
    experiment: Experiment,
    whole: TrainedRun,
    logged: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    with monkeypatch.context() as patched:
        original = TrainingModule.training_step

        def step(module: TrainingModule, batch: Any, index: int) -> Any:
            if module.batches_seen == 7:
                os.kill(os.getpid(), number)
            return original(module, batch, index)

        patched.setattr(TrainingModule, "training_step", step)
        with pytest.raises(Interrupted) as stop:
            train(experiment, store, tmp_path / "run")
    assert stop.value.number == number
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == before
    logged.clear()
    train(experiment, store, tmp_path / "run")
    assert without_progress(logged) == [f"{tmp_path / 'run'}: resuming after 8 batches"]
    assert contents(tmp_path / "run") == contents(whole.folder)


def killed_at(
    at: int, store: Store, experiment: Experiment, out: Path, monkeypatch: pytest.MonkeyPatch
) -> list[Path]:
    """The checkpoints that a training leaves, oldest first."""
    with monkeypatch.context() as patched:
        die(patched, TrainingModule, "training_step", at, KilledError())
        with pytest.raises(KilledError):
            train(experiment, store, out)
    return sorted((out / CHECKPOINTS).iterdir())


def test_a_damaged_state_is_passed_over(
    store: Store,
    experiment: Experiment,
    whole: TrainedRun,
    logged: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    older, newest = killed_at(15, store, experiment, tmp_path / "run", monkeypatch)
    content = newest.read_bytes()
    newest.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    logged.clear()
    train(experiment, store, tmp_path / "run")
    after = int(older.stem.split("-")[1])
    assert without_progress(logged) == [
        f"warning: {newest}: corrupt checkpoint (SHA-256 mismatch); resuming from an earlier state",
        f"{tmp_path / 'run'}: resuming after {after} batches",
    ]
    assert contents(tmp_path / "run") == contents(whole.folder)


def test_without_a_whole_state_it_begins_anew(
    store: Store,
    experiment: Experiment,
    whole: TrainedRun,
    logged: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for file in killed_at(15, store, experiment, tmp_path / "run", monkeypatch):
        file.write_bytes(b"")
    logged.clear()
    train(experiment, store, tmp_path / "run")
    assert [line.startswith("warning: ") for line in without_progress(logged)] == [True, True]
    assert contents(tmp_path / "run") == contents(whole.folder)


def test_a_full_disk_leaves_the_last_state(
    store: Store,
    experiment: Experiment,
    whole: TrainedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        die(patched, os, "fsync", 6, OSError(errno.ENOSPC, "No space left on device"))
        with pytest.raises(OSError, match=r"No space left on device: '.*/checkpoints/step-.*ckpt'"):
            train(experiment, store, out)
    assert {file.suffix for file in (out / CHECKPOINTS).iterdir()} == {".ckpt"}
    train(experiment, store, out)
    assert contents(out) == contents(whole.folder)


def test_finished_runs_are_taken_as_they_are(
    store: Store, experiment: Experiment, whole: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_train_task", None)
    assert train(experiment, store, whole.folder, resume=True).card == read_run(whole.folder)[0]
    other = load_experiment(overrides=merge(experiment.model_dump(), {"method": {"momentum": 0.5}}))
    with pytest.raises(RunError, match=r"holds a run with another method.momentum already; --overwrite"):
        train(other, store, whole.folder, resume=True)
    with pytest.raises(RunError, match="holds a run already; --overwrite replaces it"):
        train(experiment, store, whole.folder)
    with pytest.raises(ConfigError, match="contradict"):
        train(experiment, store, whole.folder, resume=True, overwrite=True)


def test_another_store_is_refused(
    store: Store, experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed_at(5, store, experiment, tmp_path / "run", monkeypatch)
    other = make_synthetic(tmp_path / "other", samples=211, seed=4, missing=0.2)
    with pytest.raises(RunError, match="holds an unfinished run with another store already"):
        train(experiment, other, tmp_path / "run")
    (tmp_path / "run" / EXPERIMENT).write_text("{")
    with pytest.raises(RunError, match=r"cannot be read .*; --overwrite starts anew"):
        train(experiment, store, tmp_path / "run")


def test_two_trainings_do_not_share_a_folder(store: Store, experiment: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    with lock(out), pytest.raises(RunError, match="in use by another carat process"):
        train(experiment, store, out)
    assert not list(out.iterdir())


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    enter = f"with c.lock(pathlib.Path({str(tmp_path)!r})): os._exit(9)"
    code = f"import os, pathlib, carat.utils.locking as c\n{enter}"
    subprocess.run([sys.executable, "-c", code], check=False)
    assert (tmp_path / ".lock").exists()
    with lock(tmp_path):
        pass
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("name", [WEIGHTS, EXPERIMENT, CARD])
def test_an_altered_run_is_refused(name: str, whole: TrainedRun, tmp_path: Path) -> None:
    import shutil

    from carat.inference.loading import load

    copy = Path(shutil.copytree(whole.folder, tmp_path / "copy"))
    content = (copy / name).read_bytes()
    middle = len(content) // 2
    altered = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    for changed in (altered, content[:-5], b""):
        (copy / name).write_bytes(changed)
        with pytest.raises(RunError, match=name):
            load(copy)
