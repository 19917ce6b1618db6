"""Compiled training steps, and going on without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from carat.config.base import merge
from carat.config.experiment import Experiment, parse_experiment
from carat.data.store import Store
from carat.training import compilation
from carat.training.train import TrainedRun, train

pytestmark = pytest.mark.filterwarnings("ignore")  # tracing raises warnings within PyTorch


def experiment(tiny: Experiment, graph: str) -> Experiment:
    return parse_experiment(merge(tiny.model_dump(), {"training": {"graph": graph, "epochs": 1}}), "test")


def weights(run: TrainedRun) -> bytes:
    return (run.folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("graph", ["compiled", "cuda-graphs"])
def test_training_goes_on_where_graphs_are_not_possible(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler found\nsecond line")

    monkeypatch.setattr(torch, "compile", refuse)
    run = train(experiment(tiny, graph), store, tmp_path / graph)
    (note,) = [note for note in run.card.notes if "training.graph" in note]
    reason = (
        "not possible here (no compiler found)" if graph == "compiled" else "no CUDA graphs without a GPU"
    )
    assert reason in note
    assert weights(run) == weights(train(experiment(tiny, "eager"), store, tmp_path / "eager"))


def test_compiled_training_step_is_what_trains(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With PyTorch's tracing, but without its code generation, which takes minutes."""
    compiled, plain = [], torch.compile

    def trace(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return plain(function, backend="eager", fullgraph=True)

    monkeypatch.setattr(torch, "compile", trace)
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **_: compiled.append(self))
    run = train(experiment(tiny, "compiled"), store, tmp_path / "run")
    assert [getattr(x, "__name__", type(x).__name__) for x in compiled] == [
        compilation._probe.__name__,
        "Carat",
        "losses_of_shuffle",
    ]
    assert not [note for note in run.card.notes if "training.graph" in note]
    assert run.card.validation["micro_f1"] is not None
