from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carat.data.store import Store, open_store
from carat.utils.errors import DataError


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store.folder, tmp_path / "copy"))


def test_arrays_are_not_pickled(store: Store) -> None:
    store.features("text", 0)
    data = pickle.dumps(store)
    assert len(data) < 20_000
    restored: Store = pickle.loads(data)
    np.testing.assert_array_equal(restored.features("text", 5), store.features("text", 5))


def test_arrays_are_read_only(store: Store) -> None:
    with pytest.raises(ValueError, match="read-only"):
        store.features("visual", 1)[0] = 0


def test_rows_and_splits(store: Store) -> None:
    rows = np.concatenate([store.indices(split) for split in store.manifest.splits])
    assert sorted(rows.tolist()) == list(range(len(store)))
    assert store[-1].id == store[len(store) - 1].id
    with pytest.raises(IndexError):
        store[len(store)]
    with pytest.raises(DataError, match=r"no split 'tets'; did you mean 'test'\?"):
        store.indices("tets")


def truncate(path: Path) -> None:
    file = path / "features" / "audio.npy"
    with file.open("rb+") as opened:
        opened.truncate(file.stat().st_size - 8)


def empty(path: Path) -> None:
    (path / "labels.npy").write_bytes(b"")


def remove(path: Path) -> None:
    (path / "ids.npy").unlink()


def newer(path: Path) -> None:
    content = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(content | {"schema_version": 99}))


def relabel(path: Path) -> None:
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"happy"', '"merry"'))


def garble(path: Path) -> None:
    (path / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"audio.npy: truncated: \d+ bytes, expected \d+; build the store again"),
        (empty, r"labels.npy: truncated: 0 bytes"),
        (remove, r"ids.npy: missing; the store is damaged"),
        (newer, r"store schema 99, but this version of carat reads up to 1; upgrade carat"),
        (
            relabel,
            r"manifest.json: altered \(content does not match the fingerprint\); build the store again",
        ),
        (garble, r"manifest.json: cannot be read"),
    ],
)
def test_damaged_stores_are_refused(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises(DataError, match=message):
        open_store(copy)


@pytest.mark.parametrize("name", ["features/text.npy", "labels.npy", "split.npy", "groups.npy"])
def test_verify_detects_one_changed_byte(copy: Path, name: str) -> None:
    with (copy / name).open("rb+") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(DataError, match=rf"{name}: altered \(SHA-256 mismatch\); build the store again"):
        open_store(copy).verify()


def test_folders_that_are_not_stores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such store"):
        open_store(tmp_path / "nothing")
    with pytest.raises(DataError, match="not a carat store, manifest"):
        open_store(tmp_path)
