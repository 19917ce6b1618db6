"""Sweeps: search spaces, trials, pruning, and resuming."""

from __future__ import annotations

import csv
import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.runs.card import read_run
from carat.studies import sweep as sweeping
from carat.studies.space import read_space
from carat.studies.study import Study, with_settings
from carat.studies.sweep import sweep
from carat.training.lightning_module import TrainingModule
from carat.utils.errors import ConfigError, RunError

SPACE = {"method.latent": [4, 6], "training": {"learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}}


@pytest.fixture
def space(tmp_path: Path) -> Path:
    file = tmp_path / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE))
    return file


class KilledError(BaseException):
    """Simulates kill -9: carat never catches it."""


def table(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "study.csv").read_text().splitlines()))


def test_sweep_writes_its_tables_and_the_best_experiment(
    in_this_process: list[Any],
    logged: list[str],
    space: Path,
    store: Store,
    tiny: Experiment,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    study = sweep(space, store.folder, out, tiny, trials=3)
    rows = table(out)
    assert sorted(int(row["trial"]) for row in rows) == [0, 1, 2]
    assert [row["state"] for row in rows] == ["complete"] * 3
    values = [float(row["micro_f1"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert int(rows[0]["trial"]) == study.best
    first = next(row for row in rows if row["trial"] == "0")
    assert (first["method.latent"], first["training.learning_rate"]) == ("6", "0.001")
    best = load_experiment(out / "best.yaml")
    card, trained = read_run(out / "runs" / f"trial{study.best:04}")
    assert trained == best
    assert card.validation["micro_f1"] == pytest.approx(max(values), abs=1e-4)
    assert [line.split()[0] for line in logged] == ["[1/3]", "[2/3]", "[3/3]"]
    _check_frame(study, rows)
    assert "| trial | state | micro_f1 |" in (out / "study.md").read_text()
    assert not (out / ".lock").exists()


def _check_frame(study: Study, rows: list[dict[str, str]]) -> None:
    pytest.importorskip("pandas")
    frame = study.to_frame()
    assert list(frame) == ["trial", "state", "micro_f1", "epochs", "method.latent", "training.learning_rate"]
    written = sorted(rows, key=lambda row: int(row["trial"]))
    assert [f"{value:.4f}" for value in frame["micro_f1"]] == [row["micro_f1"] for row in written]
    assert [str(value) for value in frame["method.latent"]] == [row["method.latent"] for row in written]
    assert study._repr_html_().count("<tr>") == 4


def test_the_space_and_the_experiment_may_be_mappings(
    in_this_process: list[Any], store: Store, tiny: Experiment, tmp_path: Path
) -> None:
    space = {"method.latent": [4, 6]}
    study = sweep(space, store, tmp_path / "out", tiny.model_dump(), trials=1)
    assert study.experiments() == [tiny]
    with pytest.raises(ConfigError, match=r"space: unknown key 'method.latnt'; did you mean 'method.latent'"):
        sweep({"method.latnt": [4]}, store, tmp_path / "other", tiny, trials=1)


@pytest.mark.slow
def test_sweep_resumes_and_extends(
    in_this_process: list[Any],
    logged: list[str],
    space: Path,
    store: Store,
    tiny: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sweep(space, store.folder, tmp_path / "whole", tiny, trials=4)
    steps = 0
    original = TrainingModule.training_step

    def killed(module: TrainingModule, batch: Any, index: int) -> Any:
        nonlocal steps
        steps += 1
        if steps == 13:
            raise KilledError
        return original(module, batch, index)

    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(TrainingModule, "training_step", killed)
        with pytest.raises(KilledError):
            sweep(space, store.folder, out, tiny, trials=3)
    (out / "study.journal.lock").touch()  # left by a killed process
    logged.clear()
    sweep(space, store.folder, out, tiny, trials=3)
    assert logged[0] == "1 of 3 trials are already complete"
    sweep(space, store.folder, out, tiny, trials=4)
    assert table(out) == table(tmp_path / "whole")
    assert (out / "best.yaml").read_text() == (tmp_path / "whole" / "best.yaml").read_text()
    with pytest.raises(RunError, match=r"holds a sweep with another experiment\.seed already; --overwrite"):
        sweep(space, store.folder, out, with_settings(tiny, {"seed": 1}), trials=4)
    journal = out / "study.journal"
    journal.write_text("{" + journal.read_text())
    with pytest.raises(RunError, match=r"study\.journal: corrupt journal"):
        sweep(space, store.folder, out, tiny, trials=4)


@pytest.mark.slow
def test_bad_trials_are_pruned(
    in_this_process: list[Any], space: Path, store: Store, tiny: Experiment, tmp_path: Path
) -> None:
    start = with_settings(tiny, {"training.epochs": 4})
    space.write_text("training.learning_rate: [0.01, 1.0e-9]")
    sweep(space, store.folder, tmp_path / "out", start, trials=12)
    rows = table(tmp_path / "out")
    pruned = [row for row in rows if row["state"] == "pruned"]
    assert pruned
    best = max(float(row["micro_f1"]) for row in rows if row["state"] == "complete")
    assert all(float(row["micro_f1"]) < best for row in pruned)
    assert all(int(row["epochs"]) < 4 for row in pruned)
    assert rows[-1] in pruned
    sweep(space, store.folder, tmp_path / "all", start, trials=6, prune=False)
    assert {row["state"] for row in table(tmp_path / "all")} == {"complete"}


def test_space_with_a_key_of_another_method_is_refused(store: Store, tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text("method.latent: [4, 8]")
    with pytest.raises(ConfigError, match=r"unknown key 'method.latent'$"):
        read_space(tmp_path / "space.yaml", load_experiment(overrides={"method": "br"}))


@pytest.mark.slow
def test_failed_trials_do_not_end_the_others(
    logged: list[str], space: Path, store: Store, tiny: Experiment, tmp_path: Path
) -> None:
    space.write_text("training: {learning_rate: [1.0e+30, 1.0e+29], clip: [0]}")
    wild = with_settings(tiny, {"training.clip": 0, "training.learning_rate": 1e30})
    with pytest.raises(RunError, match="every trial failed"):
        sweep(space, store.folder, tmp_path / "out", wild, trials=2, workers=2)
    assert len(logged) == 2
    assert all("failed: training diverged" in line for line in logged)
    assert {row["state"] for row in table(tmp_path / "out")} == {"fail"}


def test_tpe_samples_near_good_trials(tiny: Experiment, tmp_path: Path, space: Path) -> None:
    drawn = {}
    for sampler in ("random", "tpe"):
        study = Study("sweep", tiny, read_space(space, tiny), tmp_path / sampler, sampler)  # type: ignore[arg-type]
        for number in range(60):
            study.draw(number + 1)
            rate = study.experiments()[number].training.learning_rate
            study.tell(number, -abs(rate - 3e-4))
        drawn[sampler] = [trial["training.learning_rate"] for trial in study.trials[30:]]
    near = {name: sum(2e-4 < rate < 5e-4 for rate in rates) for name, rates in drawn.items()}
    assert near["tpe"] > near["random"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("method.latend: [1]", "unknown key 'method.latend'; did you mean 'method.latent'"),
        ("method.latent: [4, -1]", "method.latent"),
        ("method.latent: 4", "expected a list of choices, or low and high"),
        ("method.latent: []", "expected a non-empty list of scalars"),
        ("method.latent: {low: 4}", "expected a list of choices, or low and high"),
        ("method.latent: {low: 8, high: 4}", "method.latent"),
        ("method.latent: {low: 4, high: 8, stepp: 2}", "unknown key 'stepp'; did you mean 'step'"),
        ("training.learning_rate: {low: 1e-4, high: 1e-3}", r"write 1\.0e-4, not 1e-4"),
        ("{}", "the search space is empty"),
        ("[", "space.yaml"),
    ],
)
def test_invalid_spaces_are_refused(content: str, message: str, space: Path, tiny: Experiment) -> None:
    space.write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_space(space, tiny)


def test_integer_ranges(space: Path, tiny: Experiment, tmp_path: Path) -> None:
    lines = (
        "method.hidden: {low: 16, high: 64, step: 16}",
        "method.encoder: {dropout: {low: 0.0, high: 0.5}}",
    )
    space.write_text("\n".join(lines))
    study = Study("sweep", tiny, read_space(space, tiny), tmp_path / "journal")
    study.draw(20)
    assert {trial["method.hidden"] for trial in study.trials[1:]} == {16, 32, 48, 64}
    assert all(0 <= trial["method.encoder.dropout"] <= 0.5 for trial in study.trials[1:])


@pytest.mark.parametrize(
    "failure",
    [OSError(errno.ENOSPC, "No space left on device"), pytest.param(MemoryError(), marks=pytest.mark.slow)],
)
@pytest.mark.slow
def test_trials_without_room_are_tried_again(
    failure: Exception,
    in_this_process: list[Any],
    space: Path,
    store: Store,
    tiny: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TrainingModule, "on_train_start", raising(failure), raising=False)
    with pytest.raises(RunError, match=r"trial 0: failed: .*; the same command tries it again"):
        sweep(space, store.folder, tmp_path / "o", tiny, trials=2)
    assert len(in_this_process) == 1  # the others would fail, too
    monkeypatch.undo()
    study = sweep(space, store.folder, tmp_path / "o", tiny, trials=2)
    assert [study.state(number) for number in (0, 1)] == ["complete"] * 2


def raising(failure: Exception) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise failure

    return fail


@pytest.mark.slow
def test_trials_whose_worker_died_are_tried_again(
    space: Path, store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sweeping, "_prepare_worker", dying)
        with pytest.raises(RunError, match="every trial failed"):
            sweep(space, store.folder, tmp_path / "o", tiny, trials=1)
    study = sweep(space, store.folder, tmp_path / "o", tiny, trials=1)
    assert study.state(0) == "complete"


def dying(store: Path, fingerprint: str) -> Any:
    """Set up a worker that dies."""
    return lambda trial, report: os.kill(os.getpid(), signal.SIGKILL)


def test_store_replaced_during_a_sweep(
    in_this_process: list[Any],
    space: Path,
    tiny: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = make_synthetic(tmp_path / "store", samples=211, seed=3)
    draw = Study.draw

    def replacing(study: Study, count: int) -> None:
        draw(study, count)
        make_synthetic(tmp_path / "store", samples=211, seed=4, overwrite=True)

    monkeypatch.setattr(Study, "draw", replacing)
    with pytest.raises(RunError, match="every trial failed"):
        sweep(space, store.folder, tmp_path / "o", tiny, trials=1)
    assert not list(tmp_path.rglob("weights.safetensors"))


@pytest.mark.parametrize("end", ['{"op_code": 5', "[" * 100_000 + "\n", "{}\n[]\n", "\x00\n{}\n"])
def test_damaged_journals(end: str, tiny: Experiment, tmp_path: Path, space: Path) -> None:
    ranges = read_space(space, tiny)
    Study("sweep", tiny, ranges, tmp_path / "journal").draw(2)
    with (tmp_path / "journal").open("a") as journal:
        journal.write(end)
    if end.endswith("\n"):
        with pytest.raises(RunError, match="journal: corrupt journal"):
            Study("sweep", tiny, ranges, tmp_path / "journal")
        return
    study = Study("sweep", tiny, ranges, tmp_path / "journal")  # torn by a full disk
    study.draw(3)
    assert len(Study("sweep", tiny, ranges, tmp_path / "journal").trials) == 3


def test_journal_must_be_a_file(tiny: Experiment, tmp_path: Path, space: Path) -> None:
    os.mkfifo(tmp_path / "journal")
    with pytest.raises(RunError, match="journal: is a named pipe, expected a file"):
        Study("sweep", tiny, read_space(space, tiny), tmp_path / "journal")


@pytest.mark.slow
def test_trial_resumes_after_its_worker_is_killed(
    space: Path, store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient = load_experiment(overrides=merge(tiny.model_dump(), {"training": {"checkpoint_every": 2}}))
    sweep(space, store.folder, tmp_path / "whole", patient, trials=3, workers=2)
    monkeypatch.setattr(sweeping, "_prepare_worker", killing)
    sweep(space, store.folder, tmp_path / "out", patient, trials=3, workers=2)
    assert len(list(tmp_path.glob("out/killed*"))) == 3
    for name in ("study.csv", "best.yaml"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    for number in range(3):
        trial = f"runs/trial{number:04}/weights.safetensors"
        assert (tmp_path / "out" / trial).read_bytes() == (tmp_path / "whole" / trial).read_bytes()


def killing(store: Path, fingerprint: str) -> Any:
    """Set up a worker that is killed once in the second epoch of every trial."""
    original = TrainingModule.training_step
    work = PREPARE(store, fingerprint)

    def task(trial: Any, report: Any) -> Any:
        mark = trial.folder.parents[1] / f"killed-{trial.folder.name}"

        def step(module: TrainingModule, batch: Any, index: int) -> Any:
            if module.batches_seen == 7 and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return original(module, batch, index)

        TrainingModule.training_step = step  # type: ignore[method-assign]
        return work(trial, report)

    return task


PREPARE = sweeping._prepare_worker


@pytest.mark.slow
def test_ray_and_local_studies_are_equal(space: Path, store: Store, tiny: Experiment, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    for engine in ("local", "ray"):
        sweep(space, store.folder, tmp_path / engine, tiny, trials=4, workers=2, engine=engine)  # type: ignore[arg-type]
    for name in ("study.csv", "study.md", "best.yaml"):
        assert (tmp_path / "ray" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
