from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.loader import make_loader
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import search_thresholds
from carat.inference.loading import load
from carat.runs.folder import RUN
from carat.training.train import TrainedRun, train
from carat.utils.errors import CaratError, ConfigError, DataError, RunError


def changed(tiny: Experiment, **values: Any) -> Experiment:
    return load_experiment(overrides=merge(tiny.model_dump(), values))


def history(run: TrainedRun) -> list[dict[str, str]]:
    return list(csv.DictReader((run.folder / "metrics.csv").read_text().splitlines()))


def test_run_folder_holds_everything(trained: TrainedRun, store: Store, tiny: Experiment) -> None:
    folder = trained.folder
    assert load_experiment(folder / "experiment.yaml") == tiny
    card = json.loads((folder / "run.json").read_text())
    assert card["labels"] == store.label_names
    assert card["fingerprint"] == store.manifest.fingerprint
    assert list(card["modalities"]) == store.modalities
    rows = history(trained)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    scores = [float(row["valid/micro_f1"]) for row in rows]
    assert card["epoch"] == 1 + int(np.argmax(scores))
    assert card["validation"]["micro_f1"] == max(scores)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["packages"]["torch"] == torch.__version__
    assert environment["seconds"] > 0
    modes = {f.name: f.stat().st_mode & 0o777 for f in folder.iterdir() if f.is_file()}
    assert len(set(modes.values())) == 1, modes
    assert (folder / "curves.svg").read_text().startswith("<?xml")
    files = {"run.json", "experiment.yaml", "environment.json", "weights.safetensors", "metrics.csv"}
    files |= {"curves.svg", "model_card.md", "model_card.json", "reference.safetensors"}
    assert {f.name for f in folder.iterdir()} == files | {"logs", "checkpoints"}
    assert RUN.foreign_files(folder) == []
    assert {f.name.split(".")[0] for f in (folder / "logs").rglob("*") if f.is_file()} >= {"events"}


def test_threshold_and_metrics_are_those_of_the_kept_weights(trained: TrainedRun, store: Store) -> None:
    predictor = load(trained.folder)
    scores = np.concatenate(
        [
            predictor.score_batch(batch)[0]
            for batch in make_loader(
                store,
                store.indices("valid"),
                store.modalities,
                batch_size=37,
                max_length=dict.fromkeys(store.modalities, 64),
            )
        ]
    )
    labels = np.asarray(store.labels)[store.indices("valid")]
    thresholds = search_thresholds(scores, labels, "global")
    assert list(trained.card.thresholds.values()) == pytest.approx(thresholds)
    metrics = compute_metrics(scores, scores > thresholds, labels, store.label_names)
    assert trained.card.validation["micro_f1"] == pytest.approx(metrics.micro_f1)


def test_the_same_seed_gives_identical_weights(
    trained: TrainedRun, store: Store, tiny: Experiment, tmp_path: Path
) -> None:
    torch.rand(7)  # what happened before must not matter
    again = train(tiny, store, tmp_path / "again")
    other = train(changed(tiny, seed=1), store, tmp_path / "other")
    weights = [load_file(run.folder / "weights.safetensors") for run in (trained, again, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not torch.equal(weights[0]["network.classifier"], weights[2]["network.classifier"])
    assert again.card == trained.card


def test_learns(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    run = train(changed(tiny, training={"epochs": 5, "learning_rate": 3e-3}), store, tmp_path / "run")
    losses = [float(row["train/total"]) for row in history(run)]
    assert losses[-1] < 0.9 * losses[0]


def test_options(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    experiment = changed(
        tiny,
        data={"modalities": ["audio", "text"], "truncation": True, "bucket": False},
        method={"encoder": {"max_length": 9}, "alignment": {"modalities": ["audio"], "steps": 4}},
        training={"accumulate": 2, "precision": "bf16", "clip": 0, "warmup": 0},
        threshold={"kind": "per-label"},
    )
    run = train(experiment, store, tmp_path / "run")
    assert list(run.card.modalities) == ["audio", "text"]
    lengths = [store.lengths(m)[store.indices("train")] for m in ("audio", "text")]
    missing = (np.sum(lengths, axis=0) == 0).sum()
    assert missing > 0
    assert run.card.notes[0] == f"{missing} samples of split 'train' excluded: they have none of audio, text"
    assert len(set(run.card.thresholds.values())) > 1


def test_divergence_is_said(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    wild = changed(tiny, training={"learning_rate": 1e30, "clip": 0})
    with pytest.raises(RunError, match=r"training diverged in epoch 1: .*lower training.learning_rate"):
        train(wild, store, tmp_path / "run")
    with pytest.raises(RunError, match=r"an unfinished run with another training\.learning_rate"):
        train(tiny, store, tmp_path / "run")


def test_one_validation_sample_and_one_label(tiny: Experiment, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "s", ["a"], {"text": "x"}, ["train", "valid"]) as writer:
        for i in range(5):
            split = "valid" if i == 4 else "train"
            writer.append(str(i), split, [i % 2], {"text": np.ones((1 + i, 2))}, group="g")
    run = train(changed(tiny, training={"epochs": 1}), tmp_path / "s", tmp_path / "run")
    assert run.card.notes == [
        "split 'valid' has no positive sample of: a",
        "1 group has samples in more than one split, e.g. 'g': scores will be optimistic (leakage between "
        "splits)",
    ]
    assert run.card.validation["macro_f1"] is None
    report = load(run.folder).evaluate(open_store(tmp_path / "s"), "valid")
    assert "a single group: there are no intervals" in report.metrics.notes
    assert np.isnan(report.intervals["micro_f1"]).all()


def test_early_stopping(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    experiment = changed(tiny, training={"epochs": 30, "early_stopping": 1, "learning_rate": 1e-9})
    run = train(experiment, store, tmp_path / "run")
    rows = history(run)
    assert len(rows) < 30
    assert run.card.epoch == len(rows) - 1


def test_an_experiment_may_be_a_mapping_or_a_file(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    short = merge(tiny.model_dump(), {"training": {"epochs": 1}})
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(short))
    by_file = train(tmp_path / "e.yaml", store.folder, tmp_path / "a")
    by_mapping = train(short, str(store.folder), tmp_path / "b")
    assert by_file.card.validation == by_mapping.card.validation
    assert by_file.card.digests["weights.safetensors"] == by_mapping.card.digests["weights.safetensors"]


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"data": {"modalities": ["adio"]}}, ConfigError, r"no modality 'adio'; did you mean 'audio'\?"),
        (
            {"data": {"modalities": ["text", "text"]}},
            ConfigError,
            "expected distinct modalities, at least one",
        ),
        ({"data": {"modalities": []}}, ConfigError, "expected distinct modalities, at least one"),
        ({"method": {"encoder": {"max_length": 9}}}, DataError, r"max_length is 9; raise method.encoder"),
        ({"training": {"accelerator": "gpu"}}, RunError, "no GPU is available to PyTorch; use auto or cpu"),
    ],
)
def test_bad_requests_write_nothing(
    store: Store,
    tiny: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    values: Any,
    kind: type[CaratError],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(kind, match=message):
        train(changed(tiny, **values), store, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_folders_are_not_overwritten_by_accident(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match="exists and is not a carat run"):
            train(tiny, store, out, overwrite=overwrite)
    (out / "experiment.yaml").write_text("")
    (out / "environment.json").write_text('{"mine": 1}')
    with pytest.raises(RunError, match="exists and is not a carat run"):
        train(tiny, store, out, overwrite=True)
    (out / "environment.json").write_text('{"packages": {}}')
    with pytest.raises(RunError, match=r"holds 'notes.txt', which is not part of a carat run"):
        train(tiny, store, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine"
    short = changed(tiny, training={"epochs": 1})
    train(short, store, tmp_path / "r")
    with pytest.raises(RunError, match="holds a run already; --overwrite replaces it"):
        train(short, store, tmp_path / "r")
    train(short, store, tmp_path / "r", overwrite=True)


def test_a_damaged_store_is_not_trained_on(tiny: Experiment, store: Store, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(store.folder, tmp_path / "copy"))
    with (copy / "features" / "text.npy").open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(DataError, match=r"text.npy: altered"):
        train(tiny, copy, tmp_path / "run")
    assert not (tmp_path / "run").exists()
