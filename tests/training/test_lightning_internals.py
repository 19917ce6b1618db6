"""What training assumes of Lightning beyond its stable API; each test names an assumption."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, EarlyStopping
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store
from carat.runs import folder as run
from carat.training import lightning_internals
from carat.training.checkpoints import CheckedFiles
from carat.training.lightning_internals import (
    SILENCED,
    distributed_strategy,
    first_node,
    quiet_lightning,
    started_processes,
)
from carat.training.lightning_module import MONITOR, TrainingModule
from carat.training.train import train
from tests.training.test_resume import KilledError, killed_at


@pytest.mark.parametrize("message", SILENCED)
def test_a_silenced_warning_is_still_issued_there(message: str) -> None:
    """Otherwise it goes from the list."""
    source = inspect.getsource(import_module(SILENCED[message]))
    joined = re.sub(r'"\s*f?"', "", source)  # messages are written in pieces
    words = message.strip(".*").replace("\\", "")
    assert words in joined.replace("\\", ""), f"{SILENCED[message]} no longer warns of '{words}'"


def test_only_the_silenced_warnings_are_silent() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with quiet_lightning():
            warnings.warn("The 'train_dataloader' does not have many workers which", stacklevel=1)
            warnings.warn("something else", stacklevel=1)
    assert [str(warning.message) for warning in seen] == ["something else"]


def test_lightning_speaks_through_these_loggers() -> None:
    code = """
import io, logging, sys, warnings
warnings.simplefilter("ignore")
import lightning as L
from carat.training.lightning_internals import quiet_lightning
logging.getLogger().addHandler(logging.StreamHandler(sys.stdout))
def speak():
    L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
with quiet_lightning():
    speak()
import pytorch_lightning  # whose logger Lightning uses from here on
with quiet_lightning():
    speak()
print("quiet until here", flush=True)
logging.getLogger().setLevel(logging.INFO)
speak()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("quiet until here\nGPU available: ")


def test_processes_are_those_of_torchruns_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"RANK": "5", "WORLD_SIZE": "7", "LOCAL_RANK": "1", "GROUP_RANK": "2"}
    values |= {"MASTER_ADDR": "host", "MASTER_PORT": "4321"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found = started_processes()
    assert found.creates_processes_externally
    assert (found.global_rank(), found.world_size(), found.local_rank(), found.node_rank()) == (5, 7, 1, 2)
    assert (found.main_address, found.main_port) == ("host", 4321)


def test_the_first_of_slurms_nodes() -> None:
    assert first_node("node[03-05,9]") == "node03"
    assert first_node("a,b") == "a"


def test_buffers_are_not_synchronized_in_every_step() -> None:
    """By whichever name PyTorch has for the switch."""
    given = distributed_strategy()._ddp_kwargs
    assert given.pop("find_unused_parameters") is True
    assert list(given.values()) == [False]
    parameters = inspect.signature(DistributedDataParallel.__init__).parameters
    assert set(given) <= set(parameters)
    assert set(given) <= {"forward_sync_buffers", "broadcast_buffers"}


def test_an_older_pytorch_has_the_older_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Older:
        def __init__(self, module: Any, broadcast_buffers: bool = True) -> None: ...

    monkeypatch.setattr(lightning_internals, "DistributedDataParallel", Older)
    assert distributed_strategy()._ddp_kwargs["broadcast_buffers"] is False


def test_a_checkpoint_holds_the_average_and_what_is_trained(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`carat.training.checkpoints` renames weights under these keys."""
    changes = {"training": {"ema_decay": 0.9, "checkpoint_every": 1, "learning_rate": 0.1}}
    experiment = load_experiment(overrides=merge(tiny.model_dump(), changes))
    file = killed_at(4, store, experiment, tmp_path / "run", monkeypatch)[-1]
    state = CheckedFiles().load_checkpoint(file)
    assert {"state_dict", "current_model_state", "averaging_state", "progress", "callbacks"} <= set(state)
    average, trained = state["state_dict"], state["current_model_state"]
    assert average.keys() == trained.keys()
    name = "model.network.classifier"
    assert not torch.equal(average[name], trained[name])
    assert set(state["averaging_state"]) == {"n_averaged"}
    assert any(key.startswith("EMAWeightAveraging") for key in state["callbacks"])


class Order(Callback):
    """Notes which hook was called."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self.name, self.seen = name, seen

    @property
    def state_key(self) -> str:
        return self.name

    def on_train_batch_end(self, *_: Any) -> None:
        self.seen.append(f"batch {self.name}")

    def on_validation_epoch_end(self, *_: Any) -> None:
        self.seen.append(f"validation {self.name}")

    def on_train_epoch_end(self, *_: Any) -> None:
        self.seen.append(f"epoch {self.name}")


class Saving(Order, Checkpoint):
    pass


class Stopping(Order, EarlyStopping):
    def __init__(self, name: str, seen: list[str]) -> None:
        EarlyStopping.__init__(self, "x")
        Order.__init__(self, name, seen)

    on_validation_end = Callback.on_validation_end


class Small(L.LightningModule):
    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.layer, self.seen = torch.nn.Linear(2, 1), seen

    def training_step(self, batch: Any, index: int) -> Any:
        return self.layer(batch[0]).sum()

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("x", 0.0)

    def on_train_epoch_end(self) -> None:
        self.seen.append("epoch module")

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_callbacks_run_in_this_order(tmp_path: Path) -> None:
    """`Ends` before an average before the caller's callbacks, whatever saves the state last."""
    seen: list[str] = []
    loader = DataLoader([(torch.ones(2),)] * 2)  # type: ignore[arg-type]
    saving, stopping = Saving("saving", seen), Stopping("stopping", seen)
    with quiet_lightning():
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[saving, Order("first", seen), stopping, Order("second", seen)],
            logger=False,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(Small(seen), loader, loader)
    every = ["first", "stopping", "second", "saving"]
    assert seen == [
        *(f"batch {name}" for _ in range(2) for name in every),
        *(f"validation {name}" for name in every),
        "epoch first",
        "epoch second",
        "epoch module",
        "epoch stopping",
        "epoch saving",
    ]


def test_metrics_of_the_bar_are_numbers(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    """`carat.training.progress` shows them."""
    seen: list[dict[str, Any]] = []

    class Look(Callback):
        def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
            seen.append(dict(trainer.progress_bar_metrics))
            assert (trainer.num_training_batches, trainer.max_epochs) == (4, 2)
            assert sum(trainer.num_val_batches) == 1

    train(tiny, store, tmp_path / "run", callbacks=[Look()])
    assert {"loss", "micro_f1"} <= set(seen[-1])
    assert all(isinstance(seen[-1][name], float) for name in ("loss", "micro_f1"))


def test_an_untrainable_method_needs_no_optimizer(store: Store, tmp_path: Path) -> None:
    """Manual optimization without optimizers: no warning of Lightning's has to be silenced for it."""
    overrides = {"method": {"name": "prior"}, "training": {"accumulate": 3, "accelerator": "cpu"}}
    made = train({**overrides}, store, tmp_path / "run")
    assert made.card.epoch == 1
    assert (made.folder / run.METRICS).is_file()


def test_logged_values_are_those_of_the_history(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that are equal in all processes are reduced by their maximum, which is exact."""
    seen: list[tuple[float, float]] = []
    original = TrainingModule.on_save_checkpoint

    def look(module: TrainingModule, checkpoint: dict[str, Any]) -> None:
        shown = float(module.trainer.callback_metrics[MONITOR])
        seen.append((shown, module.history[-1][MONITOR]))
        original(module, checkpoint)

    monkeypatch.setattr(TrainingModule, "on_save_checkpoint", look)
    train(tiny, store, tmp_path / "run")
    assert len(seen) == 2
    for shown, exact in seen:
        assert shown == float(torch.tensor(exact))


def test_a_missing_callback_is_warned_of(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning says so when a state was saved by a callback that is not there any more."""

    class Stateful(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"a": 1}

    def stop(*_: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patched:
        patched.setattr(Stateful, "on_validation_start", stop, raising=False)
        changes = {"training": {"checkpoint_every": 1}}
        experiment = load_experiment(overrides=merge(tiny.model_dump(), changes))
        with pytest.raises(KilledError):
            train(experiment, store, tmp_path / "run", callbacks=[Stateful()])
    with pytest.warns(UserWarning, match=r"Please add the following callbacks: \['.*Stateful'\]"):
        train(experiment, store, tmp_path / "run")
