"""Arrays from `.npy` and `.npz` files, honest and hostile."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carat.data.arrays import ArrayFile, read_array
from carat.utils.errors import CaratError, DataError


def header(description: str, version: bytes = b"\x01\x00") -> bytes:
    """An `.npy` file whose header is this text, followed by 64 zeros."""
    text = description.encode() + b"\n"
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text + bytes(64)


def zipped(file: Path, content: bytes, name: str = "a.npy", **settings: Any) -> Path:
    with zipfile.ZipFile(file, "w", **settings) as archive:
        archive.writestr(name, content)
    return file


@pytest.mark.parametrize("compressed", [False, True])
def test_what_numpy_writes_is_read(tmp_path: Path, compressed: bool) -> None:
    arrays = {
        "float": np.arange(6.0).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
        "empty": np.zeros((0, 4), np.float32),
        "text": np.array(["ä", "bc"]),
        "big-endian": np.arange(3, dtype=">f4"),
        "clip/audio": np.array(3.0),
    }
    (np.savez_compressed if compressed else np.savez)(tmp_path / "a.npz", **arrays)
    read = ArrayFile(tmp_path / "a.npz")
    assert list(read) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(read_array(tmp_path / "a.npy"), array)


def test_arrays_of_objects_are_read_as_plain_data(tmp_path: Path) -> None:
    sequences = np.empty(2, dtype=object)
    sequences[:] = [np.ones((2, 3)), np.zeros((4, 3))]
    np.save(tmp_path / "a.npy", sequences, allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=sequences)
    for read in (read_array(tmp_path / "a.npy"), ArrayFile(tmp_path / "a.npz")["a"]):
        assert [x.shape for x in read] == [(2, 3), (4, 3)]

    class Attack:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": (1,)})
    (tmp_path / "b.npy").write_bytes(stream.getvalue() + pickle.dumps(Attack()))
    with pytest.raises(DataError, match="refused, contains"):
        read_array(tmp_path / "b.npy")
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "description",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000000,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 4)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 3000 + ")}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "9" * 4000 + ",)}",
        "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': ('<f8', (1000, 1000)), 'fortran_order': False, 'shape': (1000,)}",
        "{'descr': '<V8', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<M8[s]', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<c16', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f8', 'fortran_order': False, 'shape': " + "(" * 900 + "1" + ",)" * 900 + "}",
        "[" * 4000 + "]" * 4000,
        "{'descr': '<f8'}",
        "{'descr': '<f8', 'shape': (3",
        "{'descr': 'what', 'fortran_order': False, 'shape': (1,)}",
        "__import__('os')",
        "x" * 60_000,
    ],
)
def test_hostile_headers(tmp_path: Path, description: str) -> None:
    (tmp_path / "a.npy").write_bytes(header(description))
    with pytest.raises(DataError) as caught:
        read_array(tmp_path / "a.npy")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        ArrayFile(zipped(tmp_path / "a.npz", header(description)))["a"]


def test_hostile_archives(tmp_path: Path) -> None:
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(1 << 20, np.uint8))
    with (
        zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a.npy", "w", force_zip64=True) as member,
    ):
        for _ in range(1100):
            member.write(bytes(1 << 20))
    with pytest.raises(DataError, match="bytes that unpack to"):
        ArrayFile(tmp_path / "bomb.npz")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        zipped(tmp_path / "other.npz", zeros.getvalue(), compression=method)
        with pytest.raises(DataError, match="unknown compression"):
            ArrayFile(tmp_path / "other.npz")
    content = bytearray(zipped(tmp_path / "locked.npz", b"x").read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "locked.npz").write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        ArrayFile(tmp_path / "locked.npz")
    with zipfile.ZipFile(tmp_path / "twice.npz", "w") as archive:
        archive.writestr("a.npy", b"1")
        archive.writestr("a", b"2")
    with pytest.raises(DataError, match="two arrays have the same name"):
        ArrayFile(tmp_path / "twice.npz")
    zipped(tmp_path / "text.npz", b"not an array")
    with pytest.raises(DataError, match="'a': not an array of NumPy"):
        ArrayFile(tmp_path / "text.npz")["a"]
    os.mkfifo(tmp_path / "pipe.npz")
    for name in ("pipe.npz", "missing.npz", "."):
        with pytest.raises(DataError, match=r"named pipe|no such file|is a folder"):
            ArrayFile(tmp_path / name)


@given(st.data())
def test_mutated_files_raise_one_line(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    stream = io.BytesIO()
    np.savez_compressed(stream, a=np.arange(6.0).reshape(2, 3), b=np.array(["x", "yz"]))
    content = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("fuzz") / "a.npz"
    file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    message = ""
    try:
        arrays = list(ArrayFile(file).values())
    except CaratError as error:
        arrays, message = [], str(error)
    assert all(isinstance(array, np.ndarray) for array in arrays)
    assert "\n" not in message
