"""Reading of `.npy` and `.npz` files: nothing is unpickled, and headers are checked before memory is used."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from carat.data.pickled.reading import read_embedded_pickle
from carat.utils.errors import DataError, first_line, printable
from carat.utils.reading import check_content, open_file

MAX_HEADER = 10_000
"""Maximum length in bytes of the header of an array."""
SAFE_SIZE, MAX_EXPANSION = 1 << 30, 50
"""A compressed file may unpack to this many bytes, or to this many times its size if that is more."""
MAX_AXES = 8
"""Maximum number of axes of an array."""
KINDS = "biufUSO"
"""Kinds of dtypes that are read: booleans, numbers, text, and objects, which are read as plain data."""
SUFFIX = ".npy"


def read_array(file: Path) -> NDArray[Any]:
    """Read an `.npy` file; numbers are memory-mapped.

    Raises:
        DataError: the file cannot be read, or has a header or a type that is refused.
    """
    check_content(file)
    with open_file(file) as opened:
        shape, fortran, dtype = _read_header(opened, str(file))
        start, size = opened.tell(), file.stat().st_size
        if dtype.kind == "O":
            return _plain_objects(opened.read(), shape, str(file))
    if math.prod(shape) * dtype.itemsize > size - start:
        raise DataError(f"{file}: truncated: {size - start} bytes, expected {dtype} {shape}")
    if not math.prod(shape):
        return np.zeros(shape, dtype)
    return np.memmap(file, dtype, "r", start, shape, "F" if fortran else "C")


class ArrayFile(Mapping[str, NDArray[Any]]):
    """The arrays of an `.npz` file by name, each read when it is looked up.

    Args:
        file: `.npz` file.

    Raises:
        DataError: not a zip file, or a member is encrypted, compressed by an unknown method, or unpacks to
            more than `SAFE_SIZE` and `MAX_EXPANSION` times the size of the file.
    """

    def __init__(self, file: Path) -> None:
        check_content(file)
        self.file = file
        try:
            self._archive = zipfile.ZipFile(file)
            members = self._archive.infolist()
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{file}: cannot be read as .npz ({brief(error)})") from error
        self._members = {member.filename.removesuffix(SUFFIX): member for member in members}
        if len(self._members) < len(members):
            raise DataError(f"{file}: two arrays have the same name")
        for name, member in self._members.items():
            if member.flag_bits & 1:
                raise DataError(f"{file}, '{name}': encrypted; save it without a password")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{file}, '{name}': unknown compression; save it with numpy.savez_compressed")
        size, limit = sum(x.file_size for x in members), MAX_EXPANSION * file.stat().st_size
        if size > max(SAFE_SIZE, limit):
            raise DataError(
                f"{file}: {file.stat().st_size} bytes that unpack to {size}, expected at most "
                f"{max(SAFE_SIZE, limit)}; save it without compression if it is meant so"
            )

    def __getitem__(self, name: str) -> NDArray[Any]:
        member, what = self._members[name], f"{self.file}, '{printable(name)}'"
        try:
            with self._archive.open(member) as opened:
                content = opened.read(member.file_size + 1)  # the declared size may be too small
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
            raise DataError(f"{what}: cannot be read ({brief(error)})") from error
        if len(content) > member.file_size:
            raise DataError(f"{what}: unpacks to more than its declared size")
        stream = io.BytesIO(content)
        shape, fortran, dtype = _read_header(stream, what)
        if dtype.kind == "O":
            return _plain_objects(stream.read(), shape, what)
        start, count = stream.tell(), math.prod(shape)
        if count * dtype.itemsize != len(content) - start:
            raise DataError(f"{what}: {len(content) - start} bytes, expected {dtype} {shape}")
        array = np.frombuffer(content, dtype, count, start) if count else np.zeros(0, dtype)
        return array.reshape(shape, order="F" if fortran else "C")

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def _read_header(stream: BinaryIO | io.BytesIO, what: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Read shape, Fortran order and dtype of an array; the stream is then at its content."""
    try:
        version = np.lib.format.read_magic(stream)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"version {version} of the format")
        shape, fortran, dtype = read(stream, max_header_size=MAX_HEADER)
    except (
        ValueError,
        EOFError,
        TypeError,
        SyntaxError,
        tokenize.TokenError,  # of headers that only Python 2 could read
        RecursionError,
        MemoryError,
        OverflowError,
    ) as error:
        raise DataError(f"{what}: not an array of NumPy ({brief(error)})") from error
    if dtype.kind not in KINDS or dtype.hasobject != (dtype.kind == "O"):
        raise DataError(f"{what}: an array of {dtype.kind!r} ({str(dtype)[:40]}), expected numbers or text")
    if len(shape) > MAX_AXES or any(not isinstance(n, int) or n < 0 for n in shape) or math.prod(shape) >> 62:
        raise DataError(f"{what}: impossible shape {str(shape)[:60]}")
    return shape, fortran, dtype


def _plain_objects(content: bytes, shape: tuple[int, ...], what: str) -> NDArray[Any]:
    """Read the content of an array of objects as plain data, without unpickling."""
    value = read_embedded_pickle(memoryview(content), what)
    if not isinstance(value, np.ndarray) or value.dtype.kind != "O" or value.shape != shape:
        raise DataError(f"{what}: an array of objects that is not plain data of its shape")
    return value


def brief(error: BaseException) -> str:
    """Return the start of an error's first line, for a message."""
    return first_line(error)[:120]
