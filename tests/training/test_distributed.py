"""Trainings of several processes."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.loader import make_loader
from carat.data.store import Store, open_store
from carat.runs.folder import METRICS, WEIGHTS
from carat.training import train as training
from carat.training.distributed import SINGLE_PROCESS, Processes, all_gather, started_by_launcher
from carat.training.launcher import launch
from carat.training.lightning_module import TrainingModule
from carat.training.setup import prepare_task
from carat.training.train import train
from carat.utils.errors import ConfigError, Interrupted, RunError
from tests.conftest import TORCHRUN, without_launcher

STEPS = 20


@pytest.fixture(scope="module")
def experiment(tiny: Experiment, store: Store) -> Experiment:
    """Without dropout, which each process draws for itself; the last batch has a single sample."""
    samples = len(store.indices("train"))
    size = next(n for n in range(20, 40) if samples % n == 1)
    epochs = -(-STEPS // -(-samples // size))
    changes = {
        "method": {"encoder": {"dropout": 0.0}},
        "data": {"batch_size": size},
        "training": {"epochs": epochs, "modality_dropout": 0.2, "checkpoint_every": 2},
    }
    return load_experiment(overrides=merge(tiny.model_dump(), changes))


def on(experiment: Experiment, devices: int) -> Experiment:
    return load_experiment(overrides=merge(experiment.model_dump(), {"training": {"devices": devices}}))


def record(experiment: Experiment, store: Path, out: Path, processes: Processes) -> None:
    """Train, and write the loss of every step and what no gradient learns."""
    losses: list[float] = []
    add = TrainingModule._add

    def noting(module: TrainingModule, terms: dict[str, Tensor], samples: int) -> None:
        losses.append(float(terms["total"].detach()))
        add(module, terms, samples)

    TrainingModule._add = noting  # type: ignore[method-assign]
    try:
        task = prepare_task(experiment, open_store(store), processes)
        finish = training._finish
        training._finish = lambda *_: None  # type: ignore[assignment]
        training._train_task(task, out / f"of{processes.size}")
    finally:
        TrainingModule._add = add  # type: ignore[method-assign]
        training._finish = finish
    buffers = dict(task.model.named_buffers())
    torch.save({"losses": losses, "buffers": buffers}, out / f"{processes.rank}of{processes.size}.pt")


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(experiment: Experiment, store: Store, tmp_path: Path) -> None:
    record(experiment, store.folder, tmp_path, SINGLE_PROCESS)
    launch(record, (experiment, store.folder, tmp_path), 2, "gloo")
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("0of1", "0of2", "1of2"))
    assert len(one["losses"]) >= STEPS
    assert first["losses"] == second["losses"]
    assert first["losses"] == pytest.approx(one["losses"], abs=1e-5)
    assert {"memory_bank.rows", "memory_bank.classes", "network.prototypes.means"} <= one["buffers"].keys()
    for name, expected in one["buffers"].items():
        assert torch.equal(first["buffers"][name], second["buffers"][name]), name
        torch.testing.assert_close(first["buffers"][name], expected, atol=1e-6, rtol=0)


@pytest.mark.slow
def test_a_run_of_two_processes(experiment: Experiment, store: Store, tmp_path: Path) -> None:
    alone = train(experiment, store, tmp_path / "one")
    both = train(on(experiment, 2), store, tmp_path / "two")
    assert both.card.thresholds == alone.card.thresholds
    assert both.card.validation == pytest.approx(alone.card.validation, abs=1e-6)
    assert {path.name for path in both.folder.iterdir()} == {path.name for path in alone.folder.iterdir()}


def stopping(experiment: Experiment, store: Path, out: Path, number: int, processes: Processes) -> None:
    """Train until the fifth batch of the second process, which gets a signal."""
    original = TrainingModule.training_step

    def step(module: TrainingModule, batch: Any, index: int) -> Any:
        if module.batches_seen == 4 and processes.rank == 1:
            os.kill(os.getpid(), number)
        return original(module, batch, index)

    TrainingModule.training_step = step  # type: ignore[method-assign]
    training._train_share(experiment, store, out, processes)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_dies_ends_all(
    number: int,
    experiment: Experiment,
    logged: list[str],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = on(experiment, 2)
    whole = train(shared, store, tmp_path / "whole")
    begun = tmp_path / "begun"

    def launch_stopping(function: Any, arguments: Any, *others: Any) -> None:
        launch(stopping, (*arguments, number), *others)

    with monkeypatch.context() as patched:
        patched.setattr(training, "launch", launch_stopping)
        if number == signal.SIGKILL:
            with pytest.raises(RunError, match="process 1 of 2 was killed by signal 9; rerun the same"):
                train(shared, store, begun)
        else:
            with pytest.raises(Interrupted) as stop:
                train(shared, store, begun)
            assert stop.value.number == number
    logged.clear()
    train(shared, store, begun)
    assert logged == [f"{begun}: resuming after {4 if number == signal.SIGKILL else 5} batches"]
    for name in (WEIGHTS, METRICS):
        assert (begun / name).read_bytes() == (whole.folder / name).read_bytes()


@dataclass
class Found:
    x: Tensor
    by_modality: dict[str, Tensor]
    nothing: None = None


def gather_and_check(totals: list[int], processes: Processes) -> None:
    for total in totals:
        weights = torch.arange(total, dtype=torch.float64)[:, None] + 1
        own = torch.tensor(processes.local_rows(total))
        leaf = (own.double()[:, None] + 1).requires_grad_()
        found = Found(leaf * 2, {"rows": own, "there": own % 2 == 0, "half": leaf.bfloat16().detach()})
        gathered = all_gather(found, total, processes)
        rows = torch.arange(total)
        assert torch.equal(gathered.by_modality["rows"], rows)
        assert torch.equal(gathered.by_modality["there"], rows % 2 == 0)
        assert gathered.by_modality["half"].dtype == torch.bfloat16
        assert gathered.nothing is None
        assert torch.equal(gathered.x.detach(), 2 * weights)
        (gathered.x * weights).sum().backward()
        expected = 2 * (own.double()[:, None] + 1) * processes.size
        assert leaf.grad is not None
        assert torch.equal(leaf.grad, expected if processes.rank < total else torch.zeros(1, 1).double())
    dist.barrier()


@pytest.mark.slow
def test_gather_keeps_order_types_and_gradients() -> None:
    launch(gather_and_check, ([7, 6, 3, 2, 1],), 3, "gloo")


def refuse(processes: Processes) -> None:
    if processes.rank == 1:
        raise ConfigError("not with me")
    dist.barrier()


def fail(processes: Processes) -> None:
    if processes.rank == 0:
        raise ZeroDivisionError("by\nnothing")
    dist.barrier()


@pytest.mark.slow
def test_what_goes_wrong_in_a_process_is_said_here() -> None:
    with pytest.raises(RunError, match=r"^not with me$"):
        launch(refuse, (), 2, "gloo")
    with pytest.raises(RunError, match=r"^process 0 of 2 failed: ZeroDivisionError by nothing$"):
        launch(fail, (), 2, "gloo")


def test_shares_of_a_batch_have_its_padding(store: Store) -> None:
    rows = store.indices("train")[:7]

    def batch(rank: int, size: int) -> Any:
        shard = Processes(rank, size).local_rows if size > 1 else None
        limits = dict.fromkeys(store.modalities, 64)
        return next(
            iter(make_loader(store, rows, store.modalities, batch_size=7, max_length=limits, shard=shard))
        )

    whole = batch(0, 1)
    for rank in range(3):
        part = batch(rank, 3)
        assert part.total == 7
        for m in store.modalities:
            assert torch.equal(part.features[m], whole.features[m][rank::3])
            assert torch.equal(part.masks[m], whole.masks[m][rank::3])
    assert torch.equal(batch(9, 10).rows, whole.rows[:1])


def test_launchers_say_who_this_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    without_launcher(monkeypatch)
    assert started_by_launcher() is None
    slurm = {
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_NNODES": "2",
        "SLURM_NODEID": "1",
        "SLURM_JOB_ID": "170023",
        "SLURM_NODELIST": "node[3-4]",
    }
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_JOB_NAME", "bash")
    assert started_by_launcher() is None
    monkeypatch.setenv("SLURM_JOB_NAME", "training")
    assert started_by_launcher() == Processes(3, 4, 1, 2)
    found = [os.environ[name] for name in TORCHRUN]
    assert found == ["3", "4", "1", "2", "1", "node3", "15023"]
    assert started_by_launcher() == Processes(3, 4, 1, 2)  # now as torchrun says it
