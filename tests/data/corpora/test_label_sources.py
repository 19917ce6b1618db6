"""Labels and folds from files of the CMU-MultimodalSDK: label sequences, and modules of standard folds."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from carat.data.corpora.folds import read_folds
from carat.data.corpora.label_table import LabelTable
from carat.data.corpora.labels import MOSEI
from carat.data.corpora.registry import Sources, import_data
from carat.utils.errors import DataError
from tests.data import field_files as files
from tests.data.field_files import COUNTS

h5py = pytest.importorskip("h5py")


def test_label_sequence_has_the_segments_of_the_table(tmp_path: Path) -> None:
    files.table(tmp_path / "labels.csv")
    files.label_sequence(tmp_path / "labels.csd")
    by_table, by_sequence = LabelTable(tmp_path / "labels.csv"), LabelTable(tmp_path / "labels.csd")
    assert len(by_sequence.segments) == sum(COUNTS.values())
    for segment in by_sequence.segments:
        other = by_table.by_segment(segment.video, segment.segment)
        assert other is not None
        np.testing.assert_allclose(segment.intensities, other.intensities, rtol=1e-6)
        assert segment.sentiment == pytest.approx(other.sentiment)
        assert (segment.start, segment.end) == pytest.approx((other.start, other.end))


@pytest.mark.parametrize("format", ["mosei-unaligned", "mmsa"])
def test_import_with_a_label_sequence(tmp_path: Path, format: str) -> None:
    files.unaligned(tmp_path / "f.pkl") if format == "mosei-unaligned" else files.mmsa(tmp_path / "f.pkl")
    files.table(tmp_path / "labels.csv")
    files.label_sequence(tmp_path / "labels.csd")
    stores = [
        import_data(format, tmp_path / "f.pkl", tmp_path / kind, Sources(labels=tmp_path / f"labels.{kind}"))
        for kind in ("csv", "csd")
    ]
    assert [str(id) for id in stores[1].ids] == [str(id) for id in stores[0].ids]
    assert np.array_equal(stores[0].labels, stores[1].labels)
    assert stores[0].labels.any()
    assert "from labels.csd" in " ".join(stores[1].manifest.notes)


def test_segments_with_numbers_in_their_ids(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "labels.csd", "w") as opened:
        for id, sentiment in (("a[4]", -1.0), ("a[2]", 2.0), ("b", 0.5)):
            group = opened.create_group(f"All Labels/data/{id}")
            group["features"] = np.array([[sentiment, 0, 0, 1, 0, 0, 0]])
            group["intervals"] = np.array([[0.0, 1.0]])
    table = LabelTable(tmp_path / "labels.csd")
    found = table.by_segment("a", "4")
    assert found is not None
    assert found.sentiment == -1
    assert found.labels.tolist() == [0, 0, 1, 0, 0, 0]
    assert table.by_segment("b", "0") is not None
    assert table.by_segment("a", "0") is None


def test_segments_in_another_order_are_refused(tmp_path: Path) -> None:
    files.mmsa(tmp_path / "f.pkl")
    files.label_sequence(tmp_path / "labels.csd")
    with h5py.File(tmp_path / "labels.csd", "r+") as opened:
        for video in opened["All Labels/data"].values():
            video["features"][:] = video["features"][()][::-1]
    with pytest.raises(DataError, match=r"labels.csd: sentiment agrees for only \d+ of 29 samples"):
        import_data("mmsa", tmp_path / "f.pkl", tmp_path / "store", Sources(labels=tmp_path / "labels.csd"))


def test_mmsa_without_sentiment_is_not_compared(tmp_path: Path) -> None:
    files.mmsa(tmp_path / "f.pkl")
    whole = pickle.loads((tmp_path / "f.pkl").read_bytes())
    for part in whole.values():
        part["regression_labels"] = np.zeros_like(part["regression_labels"])
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(whole))
    files.table(tmp_path / "labels.csv")
    store = import_data("mmsa", tmp_path / "f.pkl", tmp_path / "s", Sources(labels=tmp_path / "labels.csv"))
    assert len(store) == 29


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "is a Git LFS pointer",
        ),
        (b"<!DOCTYPE html>\n<html><body>Sign in</body></html>", "is a web page, not the file"),
        (b"no HDF5 at all", "cannot be read as HDF5"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "cannot be read as HDF5"),
        (b"", "cannot be read as HDF5"),
    ],
)
def test_label_sequences_that_are_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "labels.csd").write_bytes(content)
    with pytest.raises(DataError, match=f"labels.csd: {message}"):
        LabelTable(tmp_path / "labels.csd")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video_id": ["a\r", "b"]}, "data row 1: the ID .* ends in a carriage return"),
        ({"segment_id": ["0", "1\x1b[31m"]}, "data row 2: invalid ID"),
        ({"happy": [0.0, 1e300]}, "intensities beyond the range of float32"),
        ({"happy": [[0], [1]]}, r"column 'happy', data row 1: '\[0\]' is not a finite number"),
        ({"sad": [b"\xff", b"0"]}, "column 'sad'"),
        ({"fear": [0.0, float("nan")]}, "column 'fear', data row 2: 'nan' is not a finite number"),
    ],
)
def test_odd_columns_of_a_table(tmp_path: Path, change: dict[str, list[object]], message: str) -> None:
    columns = {"video_id": ["a", "b"], "segment_id": ["0", "1"], **{m: [0.0, 1.0] for m in MOSEI}}
    pq.write_table(pa.table(columns | change), tmp_path / "labels.parquet")
    with pytest.raises(DataError, match=message):
        LabelTable(tmp_path / "labels.parquet")


def test_long_segment_numbers_are_text(tmp_path: Path) -> None:
    segments = ["0" * 5000, "007"]
    columns = {"video_id": ["a", "b"], "segment_id": segments, **{m: [0.0, 1.0] for m in MOSEI}}
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    table = LabelTable(tmp_path / "labels.parquet")
    assert table.by_segment("a", "0" * 5000) is not None
    assert table.by_segment("b", "7") is not None


@pytest.mark.parametrize("option", ["words", "labels", "audio"])
def test_sequences_that_are_no_files_are_refused(tmp_path: Path, option: str) -> None:
    files.label_sequence(tmp_path / "labels.csd")
    (tmp_path / "folds.json").write_text('{"train": ["vidtrain0"]}')
    os.mkfifo(tmp_path / "pipe.csd")
    for file, message in ((tmp_path / "pipe.csd", "a named pipe"), (Path("/dev/zero"), "a device")):
        given = dict.fromkeys(("words", "labels", "audio"), tmp_path / "labels.csd") | {option: file}
        with pytest.raises(DataError, match=f"{file}: is {message}, expected a file"):
            import_data("csd", None, tmp_path / "store", Sources(folds=tmp_path / "folds.json", **given))


MODULE = """
import os
os.mkdir("RUN")
raw = {"words": "http://example.org/words.csd"}
standard_train_fold = ['a', "b"]
standard_valid_fold=["c[0]", 'c[1]']
standard_test_fold = ('d',)
"""


def test_folds_of_the_sdk_are_read_without_running_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folds.py").write_text(MODULE)
    expected = {"a": "train", "b": "train", "c": "valid", "d": "test"}
    assert read_folds(tmp_path / "folds.py") == expected
    assert not (tmp_path / "RUN").exists()
    folds = {"standard_train_fold": ["a", "b"], "standard_valid_fold": ["c"], "standard_test_fold": ["d"]}
    (tmp_path / "folds.json").write_text(json.dumps(folds))
    assert read_folds(tmp_path / "folds.json") == expected
    (tmp_path / "folds.csv").write_text("video,fold\na,train\nb,train\nc,dev\nd,test\n")
    assert read_folds(tmp_path / "folds.csv") == expected


WRITTEN_OUT = "cannot be read as a module with lists of IDs that are written out; it is not run"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.py", "standard_train_fold = open('ids').read().split()", WRITTEN_OUT),
        ("f.py", "standard_train_fold = [x for x in range(3)]", WRITTEN_OUT),
        ("f.py", "standard_train_fold = 5", WRITTEN_OUT),
        ("f.py", "standard_train_fold = [", WRITTEN_OUT),
        ("f.py", "standard_train_fold = " + "[" * 5000, WRITTEN_OUT),
        ("f.py", "standard_train_fold = " + "-" * 100_000 + "1", WRITTEN_OUT),
        ("f.py", "train_fold = [1, 2]", "expected lists of IDs by fold"),
        ("f.py", "x = 1", "assigns no standard_train_fold"),
        ("f.py", "train = ['a']\ntest = ['a']", "video 'a' is in two folds, train and test"),
        ("f.py", "#" + "x" * (5 << 20), "is larger than 4 MB"),
        ("f.py", "<html><head></head></html>", "is a web page"),
        ("f.json", "<html><head></head></html>", "is a web page"),
        ("f.csv", "<html><head></head></html>", "is a web page"),
        ("f.json", '{"train": ["a"], "train": ["b"]}', "duplicate key 'train'"),
        ("f.json", "{}", "expected lists of IDs by fold"),
        ("f.json", '{"train": [1' + "0" * 9999 + "]}", "cannot be read as JSON|expected lists of IDs"),
        ("f.json", '{"train": ["\\ud800"]}', "cannot be read as JSON .*half of a surrogate pair"),
    ],
)
def test_invalid_folds(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message) as error:
        read_folds(tmp_path / name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["f.py", "f.json", "f.csv"])
def test_folds_from_a_pipe_are_refused(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is a named pipe, expected a file"):
        read_folds(tmp_path / name)
