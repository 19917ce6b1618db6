"""What the built-in benchmark is for: all modalities together beat each alone, and the majority by far."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.floors import constant, micro_f1

from carat.config.experiment import load_experiment
from carat.data.synthetic import make_synthetic
from carat.inference.loading import load
from carat.training.train import train


@pytest.mark.slow
def test_all_modalities_beat_each_alone_and_the_majority(tmp_path: Path) -> None:
    store = make_synthetic(tmp_path / "store")
    found = {}
    for name, modalities in {"all": None, "text": ["text"], "visual": ["visual"], "audio": ["audio"]}.items():
        experiment = load_experiment(preset="small", overrides={"data": {"modalities": modalities}})
        run = train(experiment, store, tmp_path / name)
        found[name] = load(run.folder).evaluate(store, "test").metrics.micro_f1
    truth = np.asarray(store.labels)[store.indices("test")]
    majority = micro_f1(constant(store).predicted, truth)
    print(found, majority)
    assert found["all"] >= 0.80
    assert majority < 0.50
    for name in ("text", "visual", "audio"):
        assert majority < found[name] <= found["all"] - 0.05
