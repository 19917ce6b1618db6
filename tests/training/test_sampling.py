"""Samples of each corpus in an epoch."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from carat.config.experiment import Experiment, SamplingConfig, load_experiment
from carat.data.sampler import BucketBatchSampler, Quotas
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.training.sampling import choose_quotas
from carat.training.train import train
from carat.utils.errors import ConfigError


@pytest.fixture(scope="module")
def merged(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """30 training samples of `big` and 6 of `small`."""
    folder = tmp_path_factory.mktemp("corpora") / "store"
    rng = np.random.default_rng(0)
    with StoreWriter(folder, "both", ["a", "b"], {"x": "x"}, ["train", "valid", "test"]) as writer:
        for i in range(48):
            split = "train" if i < 36 else ("valid", "test")[i % 2]
            labels = [i % 2, None if i % 6 else 1 - i % 2]
            corpus = "small" if i % 6 == 0 else "big"
            writer.append(f"s{i}", split, labels, {"x": rng.normal(size=(2, 3))}, corpus=corpus)
    return open_store(folder)


@pytest.mark.parametrize(
    ("sampling", "counts"),
    [
        ({"temperature": 0.0}, {"big": 18, "small": 18}),
        ({"temperature": 0.5}, {"big": 25, "small": 11}),
        ({"weights": {"big": 0.5}}, {"big": 15, "small": 6}),
        ({"weights": {"small": 2.5, "big": 0.0}}, {"small": 15}),
    ],
)
def test_samples_of_each_corpus(merged: Store, sampling: dict[str, object], counts: dict[str, int]) -> None:
    rows = merged.indices("train")
    quotas = choose_quotas(merged, rows, SamplingConfig.model_validate(sampling))
    assert merged.corpora is not None
    sampler = BucketBatchSampler(rows, 4, np.ones(len(rows)), shuffle=True, seed=1, quotas=quotas)
    epochs = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        drawn = [row for batch in sampler for row in batch]
        assert Counter(merged.corpora[drawn].tolist()) == counts
        assert len(list(sampler)) == len(sampler) == -(-sum(counts.values()) // 4)
        times = [Counter(drawn)[row] for row in rows if merged.corpora[row] == "small"]
        assert max(times) - min(times) <= 1
        epochs.append(drawn)
    assert epochs[0] != epochs[1]
    again = BucketBatchSampler(rows, 4, np.ones(len(rows)), shuffle=True, seed=1, quotas=quotas)
    again.resume(1, 2)
    sampler.set_epoch(1)
    assert list(again) == list(sampler)[2:]


def test_all_samples_at_weight_one() -> None:
    quotas = Quotas(np.array([0, 1, 0]), [2, 1])
    assert sorted(quotas.draw(np.random.default_rng(0))) == [0, 1, 2]


def test_mistakes(merged: Store, store: Store) -> None:
    rows = merged.indices("train")
    with pytest.raises(ConfigError, match="has a single corpus"):
        choose_quotas(store, store.indices("train"), SamplingConfig(temperature=0.5))
    with pytest.raises(ConfigError, match="has no corpus 'bigg'; did you mean 'big'"):
        choose_quotas(merged, rows, SamplingConfig(weights={"bigg": 1.0}))
    with pytest.raises(ConfigError, match="an epoch would have no sample"):
        choose_quotas(merged, rows, SamplingConfig(weights={"big": 0.0, "small": 0.0}))
    with pytest.raises(ConfigError, match="needs either `temperature` or `weights`"):
        load_experiment(overrides={"data": {"sampling": {}}})


def test_training_with_sampling(merged: Store, tmp_path: Path) -> None:
    overrides = {
        "method": {"name": "linear"},
        "data": {"sampling": {"temperature": 0.0}, "batch_size": 8},
        "training": {"epochs": 1, "accelerator": "cpu"},
    }
    experiment: Experiment = load_experiment(overrides=overrides)
    run = train(experiment, merged, tmp_path / "run")
    assert run.experiment.data.sampling == SamplingConfig(temperature=0.0)
