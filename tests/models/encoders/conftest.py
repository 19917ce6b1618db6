"""A small text encoder, a store of token ids for it, and a run trained on that store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carat.data.store import Store
from carat.training.train import TrainedRun, train
from tests.models.encoders.folders import make_text_encoder, make_text_store

TRAINING: dict[str, Any] = {
    "data": {"batch_size": 16},
    "training": {"epochs": 8, "learning_rate": 1e-2, "accelerator": "cpu"},
}


@pytest.fixture(scope="session")
def text_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_encoder(tmp_path_factory.mktemp("encoders") / "text")


@pytest.fixture(scope="session")
def text_store(text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_text_store(tmp_path_factory.mktemp("text-store"), text_encoder)


@pytest.fixture(scope="session")
def text_run(text_store: Store, text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run of a linear head; tests must not modify it."""
    experiment = TRAINING | {
        "method": "linear",
        "encoders": {"text": {"folder": str(text_encoder), "learning_rate": 3e-3}},
    }
    return train(experiment, text_store, tmp_path_factory.mktemp("runs") / "text")
