"""Compiled training steps, and training without compilation where it fails."""

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

pytestmark = pytest.mark.filterwarnings("ignore")  # PyTorch raises warnings while tracing


def experiment(tiny: Experiment, graph: str) -> Experiment:
    return parse_experiment(merge(tiny.model_dump(), {"training": {"graph": graph, "epochs": 1}}), "test")


def weights(run: TrainedRun) -> bytes:
    return (run.folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("graph", ["compiled", "cuda-graphs"])
def test_training_falls_back_to_eager_mode(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, graph: str
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler found\nsecond line")

    monkeypatch.setattr(torch, "compile", fail)
    run = train(experiment(tiny, graph), store, tmp_path / graph)
    (note,) = [note for note in run.card.notes if "training.graph" in note]
    reason = "torch.compile failed (no compiler found)" if graph == "compiled" else "CUDA graphs need a GPU"
    assert note == f"training.graph: {reason}; trained without compilation"
    assert weights(run) == weights(train(experiment(tiny, "eager"), store, tmp_path / "eager"))


def test_training_uses_the_compiled_step(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tracing, but without code generation, which takes minutes."""
    compiled, torch_compile = [], torch.compile

    def trace(function: Any, **_: Any) -> Any:
        compiled.append(function)
        return torch_compile(function, backend="eager", fullgraph=True)

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
