from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch

import carat
from carat.data.store import Store
from carat.data.store.transform import Transform
from carat.data.store.writer import StoreWriter
from carat.inference.features import read_features, select_modalities
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.inference.writers import write_predictions
from carat.training.train import TrainedRun
from carat.utils.errors import DataError, RunError


@pytest.fixture(scope="module")
def predictor(trained: TrainedRun) -> Predictor:
    return load(trained.folder)


def test_public_names() -> None:
    assert carat.load is load
    assert carat.Predictor is Predictor
    with pytest.raises(AttributeError, match="no attribute 'laod'"):
        carat.laod  # noqa: B018


def test_predictions_of_samples_equal_those_of_the_store(predictor: Predictor, store: Store) -> None:
    by_id = dict(predictor.predict_store(store, "test"))
    rows = store.indices("test")
    assert list(by_id) == store.ids[rows].tolist()
    for row in rows[:9]:
        sample = store[row]
        single = predictor.predict(sample.features)
        batched = by_id[sample.id]
        assert list(single.scores) == store.label_names
        assert single.scores == pytest.approx(batched.scores, abs=1e-5)
        assert single.attribution == batched.attribution
        assert set(single.attribution.values()) <= set(sample.features)
        thresholds = predictor.thresholds
        assert single.labels == [n for n in store.label_names if single.scores[n] > thresholds[n]]


def test_scores_in_bf16_are_close(trained: TrainedRun, store: Store) -> None:
    _, exact, _ = load(trained.folder, calibrated=False).score(store, "test")
    _, approximate, _ = load(trained.folder, precision="bf16", calibrated=False).score(store, "test")
    assert approximate.dtype == np.float32
    assert 0 < np.abs(approximate - exact).max() < 0.03


def test_empty_modality_is_absent(predictor: Predictor, store: Store) -> None:
    text = store.features("text", int(np.argmax(store.lengths("text"))))
    pair = [{"text": text}, {"text": text.tolist(), "audio": np.zeros((0, 20))}]
    predictions = predictor.predict_batch(pair * 20)
    assert len(predictions) == 40
    assert predictions[0].scores == pytest.approx(predictions[1].scores, abs=1e-6)
    assert set(predictions[0].attribution.values()) == {"text"}


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({}, "sample 0: no modality is present; at least one of text, visual, audio"),
        ({"text": np.zeros((0, 24))}, "no modality is present"),
        ({"txt": np.ones((2, 24))}, r"unknown modality 'txt'; did you mean 'text'\?"),
        ({"text": np.ones((2, 23))}, r"text: expected numbers \(T, 24\), found float64 \(2, 23\)"),
        ({"text": np.ones(24)}, r"text: expected numbers \(T, 24\)"),
        ({"text": np.full((1, 24), np.inf)}, "text: the features contain inf or NaN"),
        ({"text": np.ones((2, 26))}, r"text: expected numbers \(T, 24\), found float64 \(2, 26\)$"),
        ({"text": np.full((1, 24), 1e300)}, "text: the features contain inf or NaN"),
        ({"text": np.ones((65, 24))}, "text: 65 steps, but max_length is 64; truncate the sequence"),
    ],
)
def test_invalid_samples_are_rejected(
    predictor: Predictor, sample: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        predictor.predict(sample)


def test_evaluation_is_reproducible(predictor: Predictor, store: Store) -> None:
    first, second = (json.dumps(predictor.evaluate(store, "test").to_json()) for _ in range(2))
    again = json.dumps(load(predictor.folder).evaluate(store, "test").to_json())
    assert first == second == again


def test_evaluation_uses_the_validation_threshold(predictor: Predictor, store: Store) -> None:
    report = predictor.evaluate(store, "valid")
    assert report.thresholds == predictor.thresholds
    assert load(predictor.folder, calibrated=False).thresholds == predictor.card.thresholds
    assert report.samples == len(store.indices("valid"))
    assert report.metrics.micro_f1 == pytest.approx(predictor.card.validation["micro_f1"])


def test_loading_leaves_the_random_state_unchanged(trained: TrainedRun) -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    load(trained.folder)
    assert torch.equal(torch.rand(1), expected)


def other_store(path: Path, labels: list[str], widths: dict[str, int]) -> Store:
    with StoreWriter(path, "other", labels, dict.fromkeys(widths, "elsewhere"), ["test"]) as writer:
        for i in range(3):
            features = {m: np.ones((2, d)) for m, d in widths.items()}
            writer.append(str(i), "test", [i % 2] * len(labels), features)
    return carat.open_store(path)


def test_stores_that_do_not_fit_are_rejected(predictor: Predictor, tmp_path: Path) -> None:
    labels = predictor.labels
    with pytest.raises(DataError, match=r"text has width 9, but the run .* was trained on 24"):
        predictor.evaluate(other_store(tmp_path / "a", labels, {"text": 9}))
    with pytest.raises(DataError, match=r"labels sad, but the run .* was trained on happy, sad"):
        predictor.evaluate(other_store(tmp_path / "b", ["sad"], {"text": 24}))
    with pytest.raises(DataError, match=r"none of the run's modalities \(text, visual, audio\)"):
        predictor.evaluate(other_store(tmp_path / "c", labels, {"smell": 24}))
    fewer = other_store(tmp_path / "d", labels, {"text": 24})
    report = predictor.evaluate(fewer)
    assert report.samples == 3
    assert report.metrics.notes == [
        "text comes from elsewhere, but the run was trained on synthetic:3",
        "the store has no visual: it is absent from every sample",
        "the store has no audio: it is absent from every sample",
        "intervals are from 3 groups, fewer than 20: they are too narrow",
    ]


def test_invalid_runs_are_rejected(trained: TrainedRun, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        load(tmp_path / "nothing")
    with pytest.raises(RunError, match="not a carat run"):
        load(tmp_path)
    for damage, message in {
        "unfinished": "the training did not finish, run.json or weights.safetensors is missing",
        "truncated": r"weights.safetensors: modified after training \(SHA-256 mismatch\)",
        "garbled": "run.json: not valid JSON",
        "newer": r"written by a newer version of carat \(schema 9\); upgrade carat",
        "other": r"experiment.yaml: modified after training \(SHA-256 mismatch\)",
        "early": "weights.safetensors: corrupt, or does not match the experiment",
    }.items():
        copy = Path(shutil.copytree(trained.folder, tmp_path / damage))
        if damage == "unfinished":
            (copy / "run.json").unlink()
        elif damage == "truncated":
            (copy / "weights.safetensors").write_bytes(b"\x00" * 50)
        elif damage == "garbled":
            (copy / "run.json").write_text("[")
        elif damage == "newer":
            (copy / "run.json").write_text('{"schema_version": 9}')
        elif damage == "early":  # written before runs had digests
            card = json.loads((copy / "run.json").read_text())
            del card["digests"]
            (copy / "run.json").write_text(json.dumps(card))
            (copy / "weights.safetensors").write_bytes(b"\x00" * 50)
        else:
            text = (copy / "experiment.yaml").read_text().replace("hidden: 16", "hidden: 32")
            (copy / "experiment.yaml").write_text(text)
        with pytest.raises(RunError, match=message) as error:
            load(copy)
        assert "\n" not in str(error.value)


def test_prediction_files_have_equal_content(predictor: Predictor, store: Store, tmp_path: Path) -> None:
    expected = list(predictor.predict_store(store, "test"))
    for name in ("p.csv", "p.jsonl", "p.parquet"):
        assert write_predictions(iter(expected), tmp_path / name) == len(expected)
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines == pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist()
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert [row["labels"] for row in rows] == [";".join(line["labels"]) for line in lines]
    for (id, prediction), line, row in zip(expected, lines, rows, strict=True):
        assert id == line["id"] == row["id"]
        assert {n: line[f"score_{n}"] for n in store.label_names} == prediction.scores
        assert {n: float(row[f"score_{n}"]) for n in store.label_names} == prediction.scores
        assert {n: row[f"attribution_{n}"] for n in store.label_names} == prediction.attribution


def test_failed_prediction_writes_no_file(tmp_path: Path) -> None:
    def broken():  # type: ignore[no-untyped-def]
        raise DataError("in the middle")
        yield

    for ending in ("csv", "jsonl", "parquet"):
        with pytest.raises(DataError, match="in the middle"):
            write_predictions(broken(), tmp_path / f"p.{ending}")
        with pytest.raises(RunError, match="no samples to write"):
            write_predictions([], tmp_path / f"p.{ending}")
    with pytest.raises(RunError, match=r"unknown ending '.xlsx'; use .csv, .parquet, .jsonl"):
        write_predictions([], tmp_path / "p.xlsx")
    (tmp_path / "q.csv").write_text("mine")
    with pytest.raises(RunError, match="exists already; --overwrite replaces it"):
        write_predictions([], tmp_path / "q.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["q.csv"]


def test_raw_features_are_transformed_like_the_store(trained: TrainedRun, store: Store) -> None:
    predictor = load(trained.folder)
    card = predictor.card.modalities["text"]
    shift = Transform(width=25, drop_columns=[3], mean=[2.0] * 24, deviation=[0.5] * 24)
    changed = card.model_copy(update={"transform": shift})
    predictor.card.modalities["text"] = changed
    stored = np.asarray(store.features("text", int(np.argmax(store.lengths("text")))))
    raw = np.insert(stored * 0.5 + 2.0, 3, 99.0, axis=1)
    expected = predictor.predict({"text": stored}, raw=False)
    assert predictor.predict({"text": raw}, raw=True).scores == pytest.approx(expected.scores, abs=1e-4)
    assert predictor.predict({"text": raw}) == predictor.predict({"text": raw}, raw=True)  # by its width
    assert predictor.predict({"text": stored}) == expected
    with pytest.raises(DataError, match="width 24, expected 25"):
        predictor.predict({"text": stored}, raw=True)
    with pytest.raises(DataError, match=r"are they features as extracted \(raw=True, --raw\)"):
        predictor.predict({"text": raw}, raw=False)
    samples, notes = select_modalities({"a": {"text": stored, "smell": stored}}, predictor.card.modalities)
    assert list(samples["a"]) == ["text"]
    assert notes == ["the run does not use: smell"]


def test_standardised_features_need_a_choice(trained: TrainedRun, store: Store) -> None:
    predictor = load(trained.folder)
    scale = Transform(width=24, mean=[2.0] * 24, deviation=[0.5] * 24)
    predictor.card.modalities["text"] = predictor.card.modalities["text"].model_copy(
        update={"transform": scale}
    )
    stored = np.asarray(store.features("text", 0))
    with pytest.raises(DataError, match=r"text: the run was trained on standardised features: say whether"):
        predictor.predict({"text": stored})
    by_choice = predictor.predict({"text": stored * 0.5 + 2.0}, raw=True)
    assert by_choice.scores == pytest.approx(predictor.predict({"text": stored}, raw=False).scores, abs=1e-4)


@pytest.mark.parametrize("raw", [None, True])
def test_padding_and_missing_values_are_cleaned_as_in_training(
    trained: TrainedRun, store: Store, raw: bool | None, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = load(trained.folder)
    for m, card in predictor.card.modalities.items():
        strip = Transform(width=card.width, padding="strip")
        predictor.card.modalities[m] = card.model_copy(update={"transform": strip})
    row = int(np.argmax((store.lengths("text") > 0) & (store.lengths("audio") > 0)))
    text, audio = (np.asarray(store.features(m, row)) for m in ("text", "audio"))
    expected = predictor.predict({"text": text}, raw=raw)
    padded = np.pad(text, ((2, 3), (0, 0)))
    for absent in (np.full_like(audio, np.nan), np.zeros_like(audio), audio[:0]):
        with caplog.at_level("WARNING", "carat"):
            assert predictor.predict({"text": padded, "audio": absent}, raw=raw) == expected
        assert "audio is absent from 1 samples: empty, or all zeros, inf or NaN" in caplog.text
    with pytest.raises(DataError, match="no modality is present"):
        predictor.predict({"audio": np.full_like(audio, np.nan)}, raw=raw)
    gap = text.copy()
    gap[0, 0] = np.nan
    zero = text.copy()
    zero[0, 0] = 0
    assert predictor.predict({"text": gap}, raw=raw) == predictor.predict({"text": zero}, raw=raw)


def test_feature_files_are_read(tmp_path: Path) -> None:
    one, several = {"text": np.ones((2, 3))}, {"a/text": np.ones((2, 3)), "b/c/audio": np.zeros((1, 2))}
    np.savez(tmp_path / "clip.npz", **one)
    np.savez(tmp_path / "many.npz", **several)
    np.savez(tmp_path / "mixed.npz", **one, **several)
    assert list(read_features(tmp_path / "clip.npz")) == ["clip"]
    samples = read_features(tmp_path / "many.npz")
    assert {id: list(sample) for id, sample in samples.items()} == {"a": ["text"], "b/c": ["audio"]}
    with pytest.raises(DataError, match="must be all 'modality' or all 'id/modality'"):
        read_features(tmp_path / "mixed.npz")
    (tmp_path / "broken.npz").write_bytes(b"no zip")
    np.save(tmp_path / "array.npy", np.ones(3))
    for name in ("broken.npz", "array.npy", "missing.npz"):
        with pytest.raises(DataError, match=r"cannot be read as \.npz|no such file"):
            read_features(tmp_path / name)
