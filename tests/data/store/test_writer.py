from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.data.store import open_store
from carat.data.store.writer import StoreWriter
from carat.utils.errors import DataError


def write(path: Path, samples: list[dict[str, Any]], **options: Any) -> None:
    with StoreWriter(path, "mine", ["sad", "fear"], {"text": "a", "audio": "b"}, ["train"], **options) as w:
        for sample in samples:
            w.append(**sample)


def sample(**changes: Any) -> dict[str, Any]:
    features = {"text": np.ones((3, 5)), "audio": np.full((2, 7), 0.5)}
    return {"id": "x", "split": "train", "labels": [1, 0], "features": features} | changes


def test_round_trip(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(steps, 5)).astype(np.float32) for steps in (3, 11, 2)]
    audio = rng.normal(size=(13, 7)).astype(np.float32)
    write(
        tmp_path / "s",
        [
            sample(id="a", features={"text": arrays[0]}, group="g", transcript="só", intensities=[2.5, 0]),
            sample(id="b", features={"text": arrays[1], "audio": audio}, labels=[0, 0], intensities=[0, 0]),
            sample(id="c", features={"text": arrays[2], "audio": np.zeros((0, 7))}, intensities=[1, 0]),
        ],
    )
    store = open_store(tmp_path / "s")
    assert [store[i].id for i in range(3)] == ["a", "b", "c"]
    for row, array in enumerate(arrays):
        np.testing.assert_array_equal(store[row].features["text"], array)
    assert list(store[0].features) == ["text"]
    np.testing.assert_array_equal(store[1].features["audio"], audio)
    assert store.lengths("audio").tolist() == [0, 13, 0]
    assert store.labels.tolist() == [[1, 0], [0, 0], [1, 0]]
    assert store.groups.tolist() == ["g", "b", "c"]
    assert [store.transcript(i) for i in range(3)] == ["só", "", ""]
    assert store.intensities is not None
    assert store.intensities.tolist() == [[2.5, 0], [0, 0], [1, 0]]
    store.verify()


def test_unknown_labels(tmp_path: Path) -> None:
    labels = [[1, None], [float("nan"), 0], np.array([0, 1]), [np.nan, np.nan]]
    write(tmp_path / "s", [sample(id=str(i), labels=x) for i, x in enumerate(labels)])
    store = open_store(tmp_path / "s")
    assert store.has_unknown
    assert store.labels.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    assert store.known.tolist() == [[True, False], [False, True], [True, True], [False, False]]
    np.testing.assert_array_equal(store.targets(), [[1, np.nan], [np.nan, 0], [0, 1], [np.nan, np.nan]])
    np.testing.assert_array_equal(store.targets([2, 0]), [[0, 1], [1, np.nan]])
    assert store.targets().dtype == np.float32
    assert store[1].known.tolist() == [False, True]
    store.verify()


def test_only_stores_with_unknown_labels_have_the_new_schema(tmp_path: Path) -> None:
    """An earlier version reads schema 1 and refuses 2; what is known completely must not change."""
    write(tmp_path / "all", [sample(labels=[1.0, 0.0])])
    write(tmp_path / "some", [sample(labels=[1, None])])
    schemas = {
        name: json.loads((tmp_path / name / "manifest.json").read_text())["schema_version"]
        for name in ("all", "some")
    }
    assert schemas == {"all": 1, "some": 2}
    store = open_store(tmp_path / "all")
    assert "known.npy" not in store.manifest.files
    assert not store.has_unknown
    assert store.known.all()
    assert store.known.shape == store.labels.shape
    assert store.targets().tolist() == [[1, 0]]


def test_unknown_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    for name, labels in {"a": [1, 0], "b": [1, None], "c": [1, float("nan")]}.items():
        write(tmp_path / name, [sample(labels=labels)])
    a, b, c = (open_store(tmp_path / name).manifest.fingerprint for name in "abc")
    assert a != b == c


def test_equal_content_has_equal_fingerprint(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, [sample()])
    write(tmp_path / "c", [sample(labels=[1, 1])])
    a, b, c = (open_store(tmp_path / name).manifest.fingerprint for name in ("a", "b", "c"))
    assert a == b != c


def test_half_precision(tmp_path: Path) -> None:
    write(tmp_path / "s", [sample()], dtype="float16")
    assert open_store(tmp_path / "s").features("text", 0).dtype == np.float16
    with pytest.raises(DataError, match="text: inf or NaN in float16, expected finite values"):
        write(tmp_path / "t", [sample(features={"text": np.full((1, 5), 1e6)})], dtype="float16")


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ([sample(), sample()], "sample 'x': duplicate id"),
        ([sample(split="trian")], "sample 'x': unknown split 'trian', expected one of train"),
        ([sample(labels=[1])], r"labels must be 2 values of 0 or 1, found \[1\]"),
        ([sample(labels=[1, 2])], r"labels must be 2 values of 0 or 1, found \[1 2\]"),
        ([sample(labels=[1, None, 0])], "labels must be 2 values of 0 or 1, found .*; NaN or None where"),
        ([sample(labels=[None, 0.5])], "labels must be 2 values of 0 or 1"),
        ([sample(labels=["1", None])], "labels must be 2 values of 0 or 1"),
        ([sample(labels=[np.inf, 1])], "labels must be 2 values of 0 or 1"),
        ([sample(features={})], "no modality is present, expected at least one"),
        (
            [sample(features={"smell": np.ones((1, 2))})],
            "unknown modality 'smell', expected one of text, audio",
        ),
        ([sample(features={"text": np.ones(5)})], r"expected a numeric array \(T, d\), found float64 \(5,\)"),
        ([sample(features={"text": np.array([["a"]])})], r"expected a numeric array \(T, d\), found <U1"),
        ([sample(features={"text": np.full((1, 5), np.nan)})], "inf or NaN in float32"),
        (
            [sample(), sample(id="y", features={"text": np.ones((1, 4))})],
            "width 4, but earlier samples have 5",
        ),
        ([sample(features={"text": np.ones((1, 5))})], "modality 'audio' is absent from every sample"),
        (
            [sample(intensities=[1, 0]), sample(id="y")],
            "1 of 2 samples have intensities, expected all or none",
        ),
        ([], "split 'train' has no samples"),
    ],
)
def test_invalid_samples_are_refused_and_no_file_is_left(
    tmp_path: Path, samples: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        write(tmp_path / "s", samples)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_replacement_keeps_the_old_store(tmp_path: Path) -> None:
    write(tmp_path / "s", [sample()])
    before = open_store(tmp_path / "s").manifest.fingerprint
    with pytest.raises(DataError, match="holds a store already; --overwrite replaces it"):
        write(tmp_path / "s", [sample(labels=[1, 1])])
    with pytest.raises(DataError, match="duplicate id"):
        write(tmp_path / "s", [sample(labels=[1, 1]), sample()], overwrite=True)
    assert open_store(tmp_path / "s").manifest.fingerprint == before
    write(tmp_path / "s", [sample(labels=[1, 1])], overwrite=True)
    assert open_store(tmp_path / "s").manifest.fingerprint != before
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_other_folders_are_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter").write_text("1")
    with pytest.raises(DataError, match="exists and is not a carat store"):
        write(tmp_path / "thesis", [sample()], overwrite=True)
    assert (tmp_path / "thesis" / "chapter").read_text() == "1"


@pytest.mark.parametrize("labels", [[], ["a", "a"], [""], [" "]])
def test_invalid_labels(tmp_path: Path, labels: list[str]) -> None:
    with pytest.raises(DataError, match="label"):
        StoreWriter(tmp_path / "s", "mine", labels, {"text": "a"}, ["train"])


@pytest.mark.parametrize("name", ["", "a/b", "..", "face.left", "text_offsets"])
def test_invalid_modalities(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="names consist of letters, digits"):
        StoreWriter(tmp_path / "s", "mine", ["a"], {name: "a"}, ["train"])


def test_other_files_or_another_manifest_are_not_replaced(tmp_path: Path) -> None:
    write(tmp_path / "s", [sample()])
    (tmp_path / "s" / "thesis.txt").write_text("mine")
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "manifest.json").write_text('{"name": "app"}')
    for folder, message in (
        ("s", r"holds 'thesis\.txt', which is not part of a carat store"),
        ("app", "exists and is not a carat store"),
    ):
        with pytest.raises(DataError, match=message):
            write(tmp_path / folder, [sample()], overwrite=True)
    assert (tmp_path / "s" / "thesis.txt").read_text() == "mine"
    assert (tmp_path / "app" / "manifest.json").read_text() == '{"name": "app"}'


def test_a_failure_removes_created_parent_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has no samples"):
        write(tmp_path / "a" / "b" / "s", [])
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "a" / "b" / "s", [sample()])
    assert (tmp_path / "a" / "b" / "s" / "manifest.json").is_file()


def test_manifest_is_plain_json(tmp_path: Path) -> None:
    write(tmp_path / "s", [sample()])
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["labels"] == ["sad", "fear"]
    assert manifest["modalities"]["text"]["width"] == 5
    assert manifest["modalities"]["audio"]["source"] == "b"
    assert manifest["splits"] == {"train": 1}
