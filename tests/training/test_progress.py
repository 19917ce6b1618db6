"""Progress of a training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import TQDMProgressBar

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.training import progress
from carat.training.lightning_module import TrainingModule
from carat.training.progress import SlowTraining
from carat.training.train import train
from carat.utils.logging import hide_progress
from carat.utils.progress import Bar
from tests.training.test_resume import KilledError, die


class NotedBar(Bar):
    """Keeps what it is to show."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[object, ...]] = []

    def start(self, description: str, total: int | None) -> None:
        self.seen.append(("start", description, total))

    def update(self, done: int, note: str = "") -> None:
        self.seen.append(("update", done, note))

    def close(self) -> None:
        self.seen.append(("close",))


@pytest.fixture
def experiment(tiny: Experiment) -> Experiment:
    changes = {"training": {"epochs": 3, "checkpoint_every": 2}}
    return load_experiment(overrides=merge(tiny.model_dump(), changes))


LINE = re.compile(
    r"epoch (\d)/3: loss ([\d.]+), validation micro-F1 ([\d.]{6})( \(best\))?, \d+ s(, about \d+ s left)?"
)


def epochs(lines: list[str]) -> list[re.Match[str]]:
    found = [LINE.fullmatch(line) for line in lines if line.startswith("epoch ")]
    assert all(found), lines
    return [match for match in found if match]


def test_without_a_terminal_every_epoch_is_a_line(
    store: Store, experiment: Experiment, tmp_path: Path, logged: list[str]
) -> None:
    run = train(experiment, store, tmp_path / "run")
    found = epochs(logged)
    assert [match[1] for match in found] == ["1", "2", "3"]
    assert [bool(match[5]) for match in found] == [True, True, False]
    rows = (run.folder / "metrics.csv").read_text().splitlines()
    names = rows[0].split(",")
    scores = [float(row.split(",")[names.index("valid/micro_f1")]) for row in rows[1:]]
    losses = [float(row.split(",")[names.index("train/total")]) for row in rows[1:]]
    assert [match[3] for match in found] == [f"{score:.4f}" for score in scores]
    assert [match[2] for match in found] == [f"{loss:.4g}" for loss in losses]
    best = [score > max(scores[:place], default=-1) for place, score in enumerate(scores)]
    assert [bool(match[4]) for match in found] == best
    assert max(place for place, is_best in enumerate(best) if is_best) == run.card.epoch - 1


def test_lines_of_a_resumed_training(
    store: Store,
    experiment: Experiment,
    tmp_path: Path,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        die(
            patched, TrainingModule, "training_step", 8, KilledError()
        )  # in the second epoch, of four batches
        with pytest.raises(KilledError):
            train(experiment, store, tmp_path / "run")
    assert [match[1] for match in epochs(logged)] == ["1"]
    train(experiment, store, tmp_path / "run")
    assert [match[1] for match in epochs(logged)] == ["1", "2", "3"]


def test_workers_show_nothing(
    store: Store, experiment: Experiment, tmp_path: Path, logged: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    hide_progress()
    train(experiment, store, tmp_path / "run")
    assert logged == []
    assert capfd.readouterr() == ("", "")


def test_the_bar_counts_batches_from_1(
    store: Store,
    experiment: Experiment,
    tmp_path: Path,
    logged: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bar = NotedBar()
    monkeypatch.setattr(progress, "open_bar", lambda: bar)
    train(experiment, store, tmp_path / "run")
    assert not epochs(logged)
    batches = -(-len(store.indices("train")) // experiment.data.batch_size) + 1  # and one of validation
    starts = [place for place, step in enumerate(bar.seen) if step[0] == "start"]
    assert [bar.seen[place] for place in starts[1:]] == [
        ("start", f"Epoch {epoch}/3", batches) for epoch in (1, 2, 3)
    ]
    for place in starts[1:]:
        steps = bar.seen[place + 1 : place + 1 + batches]
        assert [step[1] for step in steps] == list(range(1, batches + 1))
    done = [step for step in bar.seen if step[0] == "update"][-1]
    assert done[1] == batches
    assert re.fullmatch(r"loss [\d.]+, micro_f1 0\.[\d]+", str(done[2]))
    assert bar.seen[-1] == ("close",)


def test_a_bar_is_closed_when_the_training_fails(
    store: Store, experiment: Experiment, tmp_path: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = NotedBar()
    monkeypatch.setattr(progress, "open_bar", lambda: bar)
    die(monkeypatch, TrainingModule, "training_step", 2, KilledError())
    with pytest.raises(KilledError):
        train(experiment, store, tmp_path / "run")
    assert bar.seen[-1] == ("close",)


def test_a_bar_of_the_callers_replaces_carats(
    store: Store, experiment: Experiment, tmp_path: Path, logged: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    train(experiment, store, tmp_path / "run", callbacks=[TQDMProgressBar()])
    assert not epochs(logged)
    captured = capfd.readouterr()
    assert "Epoch 2" in captured.out + captured.err  # Lightning counts from 0


def test_slow_training_is_reported_once(logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("carat.training.progress.time.monotonic", lambda: clock[0])
    watch = SlowTraining()
    trainer: Any = None

    def train(seconds: float, batches: int) -> None:
        for i in range(batches):
            clock[0] += seconds
            watch.on_train_batch_end(trainer, None, None, None, i)

    watch.on_train_start(trainer, None)
    watch.on_train_epoch_start(trainer, None)
    train(1, 60)
    clock[0] += 500  # validation
    watch.on_train_epoch_start(trainer, None)
    train(2.5, 24)
    assert logged == []
    train(4, 60)
    assert logged == [
        "note: training is 4.0 times slower than in its first minute; is the machine busy? Fewer threads may "
        "be faster (--threads)"
    ]
