"""Dicts in the format of MulT: forms of labels, and the names they need."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.data.corpora.registry import Sources, import_data
from carat.data.store import Store
from carat.utils.errors import DataError
from tests.data import field_files as files
from tests.data.field_files import COUNTS, STEPS


def pairs(rows: np.ndarray) -> np.ndarray:
    """Labels (N, 4, 2) of the first four columns, for absent and present."""
    return np.stack([1 - rows[:, :4], rows[:, :4]], axis=-1)


def with_sentiment(rows: np.ndarray) -> np.ndarray:
    """Labels (N, 1, 7), sentiment and intensities."""
    return np.concatenate([np.full((len(rows), 1), -2.5), rows * 0.667], axis=1)[:, None]


def imported(folder: Path, form: Any, with_ids: bool = True, **sources: Any) -> Store:
    files.mult(folder / "f.pkl", form, with_ids)
    return import_data("mult", folder / "f.pkl", folder / "store", Sources(**sources))


def check(store: Store, columns: int) -> None:
    marked, words = files.labels(), files.lengths()
    assert dict(store.manifest.splits) == COUNTS
    for split in COUNTS:
        for i, row in enumerate(store.indices(split).tolist()):
            assert store.ids[row] == f"{split}/{i:05d}"
            assert store.labels[row].tolist() == marked[split][i][:columns].tolist()
            for m in ("text", "visual", "audio"):
                expected = files.features(split, m, STEPS[m], words[split])[i, : words[split][i]]
                np.testing.assert_array_equal(store.features(m, row), expected)


def test_iemocap(run: Any, tmp_path: Path) -> None:
    store = imported(tmp_path, pairs, with_ids=False)
    check(store, 4)
    assert store.manifest.name == "iemocap-4-mult"
    assert store.label_names == ["neutral", "happy", "sad", "angry"]
    assert store.intensities is None
    assert "labels (N, 4, 2) taken as neutral, happy, sad, angry" in store.manifest.notes[0]
    assert "the file has no IDs: samples count as independent" in store.manifest.notes[1]
    code, out, err = run("data", "check", tmp_path / "f.pkl", "--json")
    assert code in (0, 1), err
    assert '"message": "as mult, 29 samples"' in out


def test_mosei_with_sentiment(tmp_path: Path) -> None:
    store = imported(tmp_path, with_sentiment)
    check(store, 6)
    assert store.label_names == ["happy", "sad", "anger", "surprise", "disgust", "fear"]
    assert store.intensities is not None
    assert store.intensities.max() == np.float32(0.667)
    assert store.groups[0] == "vidtrain0"
    assert len(set(store.groups)) == 6 + 2 + 3


@pytest.mark.parametrize(
    "form",
    [
        lambda rows: rows,
        lambda rows: rows[:, None],
        lambda rows: rows[..., None].astype(np.float32),
        lambda rows: rows.tolist(),
        lambda rows: rows.astype(float).tolist(),
        lambda rows: np.stack([1 - rows, rows], axis=-1),
    ],
)
def test_six_emotions_need_their_order(tmp_path: Path, form: Any) -> None:
    with pytest.raises(DataError, match=r"labels \(N, .*\) do not say which label is which: .*--label-names"):
        imported(tmp_path, form)
    store = imported(tmp_path, form, label_names="mosei-by-name")
    check(store, 6)
    assert store.label_names == ["anger", "disgust", "fear", "happy", "sad", "surprise"]


@pytest.mark.parametrize(
    ("form", "names", "message"),
    [
        (lambda rows: rows[:, :1], None, r"labels \(N, 1\) are not one axis of .*; if they are senti"),
        (lambda rows: rows[:, 0], None, r"labels \(N\) are not one axis of emotions"),
        (lambda rows: rows.reshape(len(rows), 2, 3), None, r"\(N, 2, 3\) are not one axis"),
        (lambda rows: rows, "iemocap-4", r"labels \(N, 6\), but --label-names has 4 names"),
        (lambda rows: rows - 1.0, "mosei", "have negative values"),
        (lambda rows: rows * np.nan, "mosei", "train, labels: inf or NaN"),
        (lambda rows: [["sad"]] * len(rows), "mosei", "expected numbers, found str"),
        (lambda rows: [list(range(i % 2)) for i in range(len(rows))], "mosei", "numbers of one shape"),
        (lambda rows: rows[:, : 5 + len(rows) % 2], "mosei", "labels of different shape"),
        (lambda rows: np.ones((len(rows), 4, 2)), None, "expected pairs for absent and present"),
        (lambda rows: 9 + np.ones((len(rows), 7)), None, "are not sentiment and six intensities; name them"),
        (lambda rows: rows[1:], "mosei", "entries have different lengths: text 17"),
    ],
)  # fmt: skip
def test_invalid_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Any, names: str | None, message: str
) -> None:
    monkeypatch.setattr(files, "COUNTS", {"train": 17, "valid": 5, "test": 8})
    with pytest.raises(DataError, match=message):
        imported(tmp_path, form, label_names=names)
    assert not (tmp_path / "store").exists()


def test_entries_are_required(tmp_path: Path) -> None:
    files.mult(tmp_path / "f.pkl", pairs)
    whole = pickle.loads((tmp_path / "f.pkl").read_bytes())
    del whole["valid"]["vision"]
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(whole))
    with pytest.raises(DataError, match="valid: no entry 'vision'; available: text, audio, labels, id"):
        import_data("mult", tmp_path / "f.pkl", tmp_path / "store")
