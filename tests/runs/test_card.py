"""Cards of runs: names instead of order, limits, and files that are none."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.data.store import Store
from carat.runs.card import _canonical, read_run, write_card
from carat.training.train import TrainedRun
from carat.utils.errors import CaratError, DataError, RunError

OLD = Path(__file__).with_name("schema1") / "carat"


@pytest.fixture
def run(trained: TrainedRun, tmp_path: Path) -> Path:
    """A run whose labels have different thresholds."""
    folder = Path(shutil.copytree(trained.folder, tmp_path / "run"))
    card, _ = read_run(folder)
    thresholds = {name: (i + 1) / 10 for i, name in enumerate(card.labels)}
    write_card(folder, card.model_copy(update={"thresholds": thresholds}))
    return folder


def rewrite(
    folder: Path, change: Callable[[dict[str, Any]], dict[str, Any]], sort_keys: bool = False
) -> None:
    """Change a card and its digest, as an attacker would."""
    content = change(json.loads((folder / "run.json").read_text()))
    content["digests"]["run.json"] = hashlib.sha256(_canonical(content)).hexdigest()
    (folder / "run.json").write_text(json.dumps(content, sort_keys=sort_keys))


def predicted(folder: Path, store: Store) -> tuple[Any, Any, Any]:
    predictor = carat.load(folder, "cpu")
    predictions = [prediction for _, prediction in predictor.predict_store(store, "test")]
    report = predictor.evaluate(store, "test")
    attribution = [prediction.attribution for prediction in predictions]
    return [prediction.labels for prediction in predictions], attribution, report.thresholds


def test_sorted_keys_change_no_prediction(run: Path, store: Store) -> None:
    expected = predicted(run, store)
    text = (run / "run.json").read_text()
    rewrite(run, lambda content: content, sort_keys=True)
    assert (run / "run.json").read_text() != text
    assert list(json.loads((run / "run.json").read_text())["modalities"]) == ["audio", "text", "visual"]
    assert predicted(run, store) == expected
    card, _ = read_run(run)
    assert list(card.thresholds) == card.labels
    assert list(card.modalities) == card.modality_order == ["text", "visual", "audio"]


def swapped(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: content | {key: dict(reversed(content[key].items()))}


@pytest.mark.parametrize("key", ["thresholds", "modalities"])
def test_swapped_keys_change_no_prediction(key: str, run: Path, store: Store) -> None:
    expected = predicted(run, store)
    rewrite(run, swapped(key))
    assert predicted(run, store) == expected


def test_sorted_keys_of_early_versions_are_refused(tmp_path: Path) -> None:
    for sort_keys, change in ((True, lambda content: content), (False, swapped("thresholds"))):
        folder = Path(shutil.copytree(OLD, tmp_path / str(sort_keys)))
        assert read_run(folder)[0].labels[:2] == ["happy", "sad"]
        rewrite(folder, change, sort_keys)
        with pytest.raises(RunError, match=r"run\.json: another program changed the order of its keys"):
            read_run(folder)


def without(*path: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        del inner[path[-1]]
        return content

    return change


def with_value(*path: str, value: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return content

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("thresholds", "sad"), r"run\.json: thresholds: keys .*, expected the labels: happy, sad"),
        (with_value("thresholds", "merry", value=0.5), "thresholds: keys .*merry, expected the labels"),
        (with_value("thresholds", "sad", value=float("nan")), r"thresholds\.sad: "),
        (with_value("thresholds", "sad", value=float("inf")), r"thresholds\.sad: "),
        (with_value("thresholds", "sad", value=7), r"thresholds\.sad: .*less than or equal to 1, found 7"),
        (with_value("thresholds", value={}), "thresholds: keys none, expected the labels"),
        (with_value("labels", value=[]), "labels: expected at least one label"),
        (with_value("labels", value=["sad"] * 6), "labels: duplicate label 'sad'"),
        (with_value("labels", value=["sad", " "]), "labels: empty label name"),
        (with_value("modalities", value={}), "modalities: expected at least one modality"),
        (
            without("modalities", "text"),
            "modalities: keys visual, audio, expected the order of the modalities",
        ),
        (with_value("modality_order", value=["text", "text", "audio"]), "modalities: keys"),
        (with_value("modalities", "text", "width", value=-1), r"modalities\.text\.width: .*greater than 0"),
        (with_value("modalities", "text", "width", value=10**9), r"modalities\.text\.width: .*less than"),
        (with_value("modalities", "text", "width", value=10**400), r"modalities\.text\.width: "),
        (with_value("modalities", "text", "pad_to", value=10**12), r"modalities\.text\.pad_to: .*less than"),
        (
            with_value("modalities", "text", "pad_to", value=10**6),
            r"modalities\.text\.pad_to is 1000000, but the model reads at most 64 steps",
        ),
        (
            with_value("modalities", "text", "transform", value={"width": 7}),
            r"modalities\.text: width \d+, but its specification results in 7",
        ),
        (with_value("modalities", "text", "waveform", value={"rate": 9}), r"modalities\.text: width"),
        (with_value("epoch", value=-1), "epoch: .*greater than or equal to 0"),
        (with_value("schema_version", value=10**400), "upgrade carat"),
        (with_value("digests", "/dev/zero", value=""), "digests: '/dev/zero' is no file of a run"),
        (
            with_value("digests", "encoders/../../x", value=""),
            "digests: 'encoders/../../x' is no file of a run",
        ),
    ],
)
def test_impossible_cards_are_refused_in_one_line(
    change: Callable[[dict[str, Any]], dict[str, Any]], message: str, run: Path
) -> None:
    rewrite(run, change)
    with pytest.raises(RunError, match=message) as caught:
        carat.load(run, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[" * 100_000, "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"labels": [], "labels": []}', "duplicate key 'labels'"),
        ('{"schema_version": "x"}', "schema_version: "),
    ],
)
def test_cards_that_are_no_cards(content: str, message: str, run: Path) -> None:
    (run / "run.json").write_text(content)
    with pytest.raises(RunError, match=rf"run\.json: .*{message}"):
        read_run(run)


@pytest.mark.parametrize("name", ["run.json", "experiment.yaml", "weights.safetensors"])
def test_pipes_instead_of_files(name: str, run: Path) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(CaratError, match=rf"{name}: is a named pipe, expected a file"):
        carat.load(run, "cpu")


def test_order_of_the_scores_is_that_of_the_labels(run: Path, store: Store) -> None:
    predictor = carat.load(run, "cpu", calibrated=False)
    _, scores, _ = predictor.score(store, "test")
    labels = [prediction.labels for _, prediction in predictor.predict_store(store, "test")]
    above = scores > np.arange(1, 7) / 10
    assert labels == [[n for n, x in zip(predictor.labels, row, strict=True) if x] for row in above]


def test_memory_banks_larger_than_the_weights_are_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carat.models.build.SLACK", 1 << 20)
    text = (run / "experiment.yaml").read_text()
    assert "queue: 101" in text
    (run / "experiment.yaml").write_text(text.replace("queue: 101", "queue: 100000"))
    digest = hashlib.sha256((run / "experiment.yaml").read_bytes()).hexdigest()
    rewrite(run, with_value("digests", "experiment.yaml", value=digest))
    with pytest.raises(DataError, match="the weights belong to a smaller model than that of the experiment"):
        carat.load(run, "cpu")
