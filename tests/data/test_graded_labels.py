"""Graded labels on their way from a table to a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.data.merge.merging import merge_stores
from carat.data.store import open_store
from carat.data.store.writer import StoreWriter
from carat.utils.errors import ConfigError, DataError
from tests.data.test_unknown_labels import NAN, build

TABLES = {
    "train": "id,x,sad,glad\na,1,3,0\nb,2,1,2\nc,3,0,\n",
    "valid": "id,x,sad,glad\nd,4,0,1\ne,5,2,0\n",
}
COLUMNS: dict[str, Any] = {"columns": ["sad", "glad"], "unknown": "keep"}


def test_columns_are_divided_by_the_scale(tmp_path: Path) -> None:
    store = build(tmp_path, TABLES, **COLUMNS, target="graded", scale=3, rule=">= 2")
    np.testing.assert_allclose(
        store.soft_targets(), np.array([[3, 0], [1, 2], [0, NAN], [0, 1], [2, 0]]) / 3, rtol=1e-6
    )
    np.testing.assert_array_equal(store.targets(), [[1, 0], [0, 1], [0, NAN], [0, 0], [1, 0]])
    assert "graded labels are the columns divided by 3" in store.manifest.notes[0]
    assert store.manifest.schema_version == 2
    again = open_store(store.folder)
    assert again.grades is not None
    assert again.grades[2, 1] == 0


def test_binary_stores_have_no_grades(tmp_path: Path) -> None:
    store = build(tmp_path, TABLES, **COLUMNS)
    assert store.grades is None
    np.testing.assert_array_equal(store.soft_targets(), store.targets())


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"target": "graded"}, "column 'sad': 3, but graded labels are from 0 to `scale`, here 1"),
        ({"target": "graded", "scale": 2}, "the largest number is 3: set labels: {scale: …}"),
        ({"target": "graded", "scale": 0}, "scale"),
        ({"scale": 3}, "scale has no effect without `target: graded`"),
        ({"target": "soft"}, "binary"),
    ],
)
def test_mistakes(tmp_path: Path, labels: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        build(tmp_path, TABLES, **COLUMNS, **labels)


def test_names_have_no_grades(tmp_path: Path) -> None:
    tables = {split: table.replace("sad,glad", "label,glad") for split, table in TABLES.items()}
    with pytest.raises(ConfigError, match="target has no effect with column"):
        build(tmp_path, tables, column="label", target="graded")


@pytest.mark.parametrize("grades", [[0.5], [0.5, 1.5], [-0.1, 0], [NAN, 0.5]])
def test_invalid_grades_are_refused(tmp_path: Path, grades: list[float]) -> None:
    with pytest.raises(DataError, match=r"grades must be 2 values in \[0, 1\]"):
        write(tmp_path / "s", [grades])
    assert not (tmp_path / "s").exists()
    with pytest.raises(DataError, match="1 of 2 samples have grades, expected all or none"):
        write(tmp_path / "t", [[0.5, 0.1], None])


def write(folder: Path, grades: list[list[float] | None]) -> None:
    with StoreWriter(folder, "s", ["a", "b"], {"x": "x"}, ["train"]) as writer:
        for i, row in enumerate(grades):
            writer.append(str(i), "train", [1, 0], {"x": np.full((1, 2), i)}, grades=row)


@pytest.mark.parametrize("value", [2.0, -1.0, NAN])
def test_altered_grades_are_refused(tmp_path: Path, value: float) -> None:
    write(tmp_path / "s", [[0.5, 0.1], [1, 0]])
    file = tmp_path / "s" / "grades.npy"
    array = np.load(file)
    array[1, 1] = value
    np.save(file, array)
    with pytest.raises(DataError, match=r"grades.npy: altered: values outside \[0, 1\]"):
        open_store(tmp_path / "s")


def test_merging_keeps_grades_and_takes_binary_labels_as_0_or_1(tmp_path: Path) -> None:
    write(tmp_path / "graded", [[0.5, 0.25], [1, 0]])
    with StoreWriter(tmp_path / "binary", "b", ["a", "c"], {"x": "x"}, ["train"]) as writer:
        writer.append("1", "train", [0, NAN], {"x": np.full((1, 2), 9)})
        writer.append("2", "train", [1, 1], {"x": np.full((1, 2), 8)})
    corpora = {
        "g": {"store": "graded", "labels": {"a": ["a", "b"]}},
        "b": {"store": "binary", "labels": {"a": "a", "c": "c"}},
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"name": "all", "corpora": corpora}, sort_keys=False))
    merged = merge_stores(tmp_path / "plan.yaml", tmp_path / "merged")
    assert merged.label_names == ["a", "c"]
    np.testing.assert_array_equal(merged.soft_targets(), [[0.5, NAN], [1, NAN], [0, NAN], [1, 1]])
