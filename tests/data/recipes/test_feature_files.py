"""Feature files of other programs as the source of a modality."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch

from carat.data.recipes.sources.arrays import ArraySource
from carat.data.recipes.sources.csv_features import read_csv
from carat.data.recipes.sources.keys import likely_difference
from carat.utils.errors import DataError

h5py = pytest.importorskip("h5py")

CLIPS = {
    "c1": np.arange(6, dtype=np.float32).reshape(2, 3),
    "c2": np.ones((4, 3), np.float32),
}


def write_h5(file: Path) -> None:
    with h5py.File(file, "w") as opened:
        for key, array in CLIPS.items():
            opened[key] = array


WRITERS = {
    ".npz": lambda file: np.savez(file, **CLIPS),
    ".pkl": lambda file: file.write_bytes(pickle.dumps(CLIPS)),
    ".pt": lambda file: torch.save({key: torch.from_numpy(x) for key, x in CLIPS.items()}, file),
    ".mat": lambda file: scipy.io.savemat(file, CLIPS),
    ".h5": write_h5,
}


@pytest.mark.parametrize("ending", WRITERS)
def test_one_array_per_key(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"features{ending}"
    WRITERS[ending](file)
    source = ArraySource(file)
    first, second, missing = source.read(["c1", "c2.wav", "c3"])
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, CLIPS["c1"])
    np.testing.assert_array_equal(second, CLIPS["c2"])
    assert missing is None
    assert source.report() == ["1 keys matched without their file extension"]
    assert "1 keys of the table are not among the 2 of the file, e.g. 'c3'; the file has e.g. 'c1', 'c2'" in (
        source.describe_missing()
    )


def write_cells(file: Path, sequences: Any) -> None:
    scipy.io.savemat(file, {"x": sequences, "names": np.array(["c1", "c2"], dtype=object)})


@pytest.mark.parametrize("ending", [".npz", ".pkl", ".mat"])
def test_sequences_of_unequal_length_with_keys(tmp_path: Path, ending: str) -> None:
    sequences = np.empty(2, dtype=object)
    sequences[:] = list(CLIPS.values())
    file = tmp_path / f"features{ending}"
    if ending == ".npz":
        np.savez(file, x=sequences, names=np.array(list(CLIPS)))
    elif ending == ".pkl":
        file.write_bytes(pickle.dumps({"x": list(CLIPS.values()), "names": list(CLIPS)}))
    else:
        write_cells(file, sequences)
    second, first = ArraySource(file, "x", "names").read(["c2", "c1"])
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, CLIPS["c1"])
    np.testing.assert_array_equal(second, CLIPS["c2"])


@pytest.mark.parametrize(("ending", "values"), [(".npy", None), (".npz", "x"), (".pkl", None), (".pkl", "x")])
def test_a_dict_in_an_array_or_in_a_file(tmp_path: Path, ending: str, values: str | None) -> None:
    file = tmp_path / f"a{ending}"
    content = np.array(CLIPS, dtype=object)
    if ending == ".npy":
        np.save(file, content)
    elif ending == ".npz":
        np.savez(file, x=content)
    else:
        file.write_bytes(pickle.dumps({"x": CLIPS} if values else content))
    (first,) = ArraySource(file, values=values).read(["c1"])
    assert first is not None
    np.testing.assert_array_equal(first, CLIPS["c1"])


def test_padded_keys_of_matlab(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.ones((2, 1, 3)), "names": np.array(["c1", "clip10"])})
    first, second = ArraySource(tmp_path / "a.mat", values="x", keys="names").read(["c1", "clip10"])
    assert first is not None
    assert second is not None


def test_values_with_keys_in_a_second_file(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(2, 2, 3))
    np.save(tmp_path / "names.npy", np.array(["a.mp4", "b.mp4"]))
    (b,) = ArraySource(tmp_path / "x.npy", keys="names.npy").read(["b"])
    assert b is not None
    assert b.tolist() == [[6, 7, 8], [9, 10, 11]]
    (row,) = ArraySource(tmp_path / "x.npy").read(["1"])
    assert row is not None
    assert row.tolist() == b.tolist()


def test_a_folder_with_one_file_per_clip(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (tmp_path / "s1").mkdir()
    np.save(tmp_path / "s1" / "c1.npy", CLIPS["c1"])
    torch.save(torch.ones(2, 3), tmp_path / "c2.pt")
    (tmp_path / "c3.csv").write_text("frame, AU01_r, AU02_r, success\n1, 0.5, -nan(ind), 1\n2, 1, 2, 1\n")
    np.savez(tmp_path / "c4.npz", a=np.ones((1, 3)), b=np.ones((1, 3)))
    (tmp_path / "notes.md").write_text("not features")
    source = ArraySource(tmp_path)
    c1, c2, c3 = source.read(["s1/c1", "c2.mp4", "c3.csv"])
    assert c1 is not None
    assert c2 is not None
    assert c3 is not None
    np.testing.assert_array_equal(c1, CLIPS["c1"])
    assert c2.shape == (2, 3)
    np.testing.assert_array_equal(c3, [[0.5, np.nan], [1, 2]])
    with pytest.raises(DataError, match=r"c4.npz: holds 2 arrays \(a, b\), expected one"):
        source.read(["c4"])
    with pytest.raises(DataError, match="no feature file in it"):
        ArraySource(empty)
    before = source.id
    np.save(tmp_path / "s1" / "c1.npy", np.ones((9, 3)))
    assert ArraySource(tmp_path).id != before


@pytest.mark.parametrize(
    ("text", "columns", "expected"),
    [
        ("name;frameTime;F0;loud\n'a';0.0;1.5;2\n'a';0.1;inf;3\n", None, [[1.5, 2], [np.inf, 3]]),
        ("frame, timestamp, AU01_r, AU01_c\n1, 0.0, 0.5, 1\n", ["AU*_r"], [[0.5]]),
        ("a\tb\n1\t2\n", ["b", "a"], [[2, 1]]),
        ("a,b\r\n1,\r\n", None, [[1, np.nan]]),
        ("\ufeffa,b\n1,2\n", None, [[1, 2]]),
        (",time,a\n0,0.5,1\n1,1.0,2\n", None, [[1], [2]]),
        ("Unnamed: 0,a,b\n0,--undefined--,NA\n", None, [[np.nan, np.nan]]),
        ("name;F0;class\n'a';1.5;?\n", None, [[1.5]]),
    ],
)
def test_csv_of_features(tmp_path: Path, text: str, columns: list[str] | None, expected: Any) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode())
    values = read_csv(tmp_path / "a.csv", columns).values
    np.testing.assert_array_equal(values, np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("text", "columns", "problem"),
    [
        ("a,b\n1,2,3\n", None, "data row 1 has 3 cells, expected 2"),
        ("a,b\n1,x\n2,3\n", ["b"], "column 'b', data row 1: 'x' is not a number"),
        ("a,a\n1,2\n", None, "two columns are named 'a'"),
        ("1,2\n3,4\n", None, "has no header"),
        ("a,b\n1,2\n", ["AU*"], r"no column 'AU\*'; available: a, b"),
        ("name,x\nq,r\n", None, "no numeric column"),
        ("n;x\n5;0,25\n", None, "column 'x', data row 1: '0,25' has a decimal comma"),
        ("n,x\n5,low\n6,2\n", None, "column 'x', data row 1: 'low' is not a number, but other rows have"),
        ("", None, "is empty"),
    ],
)
def test_wrong_csv(tmp_path: Path, text: str, columns: list[str] | None, problem: str) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=problem):
        read_csv(tmp_path / "a.csv", columns)


def test_a_csv_of_all_clips(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("name;F0\n'c1.wav';1\n'c2.wav';3\n'c1.wav';2\n")
    c1, c2 = ArraySource(tmp_path / "a.csv", keys="name").read(["c1", "c2"])
    assert c1 is not None
    assert c2 is not None
    assert (c1.tolist(), c2.tolist()) == ([[1], [2]], [[3]])
    (tmp_path / "b.csv").write_text("clip,F0\n7,1\n8,3\n")
    (seven,) = ArraySource(tmp_path / "b.csv", keys="clip").read(["7"])
    assert seven is not None
    assert seven.tolist() == [[1]]  # without the key
    with pytest.raises(DataError, match="no column 'nam'; did you mean 'name'"):
        ArraySource(tmp_path / "a.csv", keys="nam")


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("b,a", "feature 0 is 'b', but 'a' in c1.csv"),
        ("a,c", "feature 1 is 'c', but 'b' in c1.csv"),
        ("a,b,c", "feature 2 is 'c', but 'none' in c1.csv"),
    ],
)
def test_csv_files_of_a_folder_must_have_the_same_columns(tmp_path: Path, header: str, problem: str) -> None:
    (tmp_path / "c1.csv").write_text("a,b\n1,2\n")
    (tmp_path / "c2.csv").write_text(f"{header}\n{','.join('567'[: len(header.split(','))])}\n")
    (tmp_path / "c3.csv").write_text("a,b\n")
    source = ArraySource(tmp_path)
    assert [None if x is None else x.shape for x in source.read(["c1", "c3"])] == [(1, 2), (0, 2)]
    with pytest.raises(DataError, match=f"c2.csv: {problem}; name the features by columns"):
        source.read(["c2"])
    if header == "b,a":
        (c2,) = ArraySource(tmp_path, columns=["a", "b"]).read(["c2"])
        assert c2 is not None
        assert c2.tolist() == [[6, 5]]


@pytest.mark.parametrize(
    ("wanted", "offered", "difference"),
    [
        (["A1", "A2"], ["a1", "a2"], "upper and lower case"),
        (["wav/a", "wav/b"], ["a.npy", "b.npy"], "the folder"),
        (["v_1_01", "v_1_02"], ["v_1_1", "v_1_2"], "leading zeros"),
        (["v/1", "v/2"], ["v_1", "v_2"], "the characters between their parts"),
        (["v_1[0]", "v_2[0]"], ["q", "r"], ""),
    ],
)
def test_the_likely_difference_of_keys(wanted: list[str], offered: list[str], difference: str) -> None:
    said = likely_difference(wanted, offered)
    assert difference in said
    assert bool(said) == bool(difference)


@pytest.mark.parametrize("ending", [".npz", ".npy", ".pkl", ".pt", ".h5", ".mat", ".csv", ".xyz"])
def test_files_of_something_else(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"a{ending}"
    file.write_bytes(b"\x89something else\x00" * 10)
    with pytest.raises(DataError) as caught:
        ArraySource(file, keys="a" if ending == ".csv" else None)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_ambiguous_stems_do_not_match(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **{"c1.wav": np.ones((1, 2)), "c1.mp4": np.zeros((1, 2))})
    source = ArraySource(tmp_path / "a.npz")
    assert source.read(["c1"]) == [None]
    assert "'c1' is any of 'c1.wav', 'c1.mp4': use keys with the extension" in source.describe_missing()
    (exact,) = source.read(["c1.mp4"])
    assert exact is not None
    assert exact.tolist() == [[0, 0]]
