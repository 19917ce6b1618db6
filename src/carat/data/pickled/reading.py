"""Safe reading of pickles: plain data, NumPy arrays and torch tensors, without Python's unpickler.

Arrays are views of the memory-mapped file where possible.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
import unicodedata
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.pickled.globals import Floats, RefusedError
from carat.data.pickled.machine import Machine
from carat.data.pickled.torch_files import LEGACY_MAGIC, WITH_TENSORS, read_archive, read_legacy
from carat.utils.errors import DataError, printable
from carat.utils.reading import check_content, open_file

MAX_ELEMENTS = 1 << 27
"""Maximum number of values in nested lists that are converted to an array."""
COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
}  # fmt: skip
"""Compressed formats by their first bytes, none of which begins a pickle."""
MAX_DEPTH = 8
"""Maximum depth of lists that are converted to an array."""


def read_pickle(file: str | os.PathLike[str]) -> Any:
    """Read a pickle file, or a file written by `torch.save`. No code in it is executed.

    Args:
        file: `.pkl` or `.pt` file.

    Returns:
        Plain data. OrderedDict and defaultdict are returned as dict, tensors as arrays, text of Python 2 as
        bytes, long byte strings as views, and long runs of floats in a list as `Floats`, which `to_array`
        converts.

    Raises:
        DataError: the file cannot be read, is corrupt, was damaged by a transfer as text, or contains
            anything but plain data, arrays and tensors.
    """
    path = Path(file)
    check_content(path)
    buffer = _map(path)
    with _convert_errors(path, buffer):
        _check_lines(path, buffer)
        for magic, kind in COMPRESSED.items():
            if bytes(buffer[: len(magic)]) == magic:
                raise DataError(f"{path}: is compressed ({kind}); decompress it first")
        if bytes(buffer[:4]) == b"PK\x03\x04":
            return read_archive(path, buffer)
        machine = Machine(buffer, handlers=WITH_TENSORS)
        value = machine.run()
        if isinstance(value, int) and value == LEGACY_MAGIC:
            return read_legacy(buffer, machine.position)
        return value


def read_embedded_pickle(buffer: memoryview, what: str) -> Any:
    """Read a pickle inside another file, such as an array of objects in an `.npy` file; see `read_pickle`.

    Args:
        buffer: the pickle.
        what: name of the pickle in error messages.
    """
    with _convert_errors(what, buffer):
        return Machine(buffer, handlers=WITH_TENSORS).run()


def to_array(value: Any, what: str) -> NDArray[Any]:
    """Convert a number, or nested lists of numbers and arrays of equal shape, to an array.

    Args:
        value: part of a pickle.
        what: name of the value in error messages.

    Raises:
        DataError: the value cannot be converted, or is nested too deeply or too large.
    """
    if isinstance(value, (list, tuple)):
        _count(value, what, MAX_DEPTH, {})
        return _stack(value, what)
    if isinstance(value, np.ndarray):
        return to_array(value.tolist(), what) if value.dtype.kind == "O" else value
    if isinstance(value, (int, float, np.number, np.bool_)):
        return np.asarray(value)
    raise DataError(f"{what}: expected numbers, found {type(value).__name__}")


def _count(value: Any, what: str, depth: int, counted: dict[int, int]) -> int:
    """Count the values in nested lists. A list that is repeated is visited once, but counted each time."""
    if isinstance(value, np.ndarray):
        return value.size
    if isinstance(value, Floats):
        return len(value.values)
    if not isinstance(value, (list, tuple)):
        return 1
    if not depth:
        raise DataError(f"{what}: lists nested deeper than {MAX_DEPTH} levels")
    if id(value) not in counted:
        counted[id(value)] = 1 + sum(_count(x, what, depth - 1, counted) for x in value)
    if counted[id(value)] > MAX_ELEMENTS:
        raise DataError(f"{what}: lists of more than {MAX_ELEMENTS} values")
    return counted[id(value)]


def _stack(values: list[Any] | tuple[Any, ...], what: str) -> NDArray[Any]:
    if all(isinstance(x, (int, float, Floats)) for x in values):
        parts = [x.values if isinstance(x, Floats) else np.array([x], dtype=np.float64) for x in values]
        return np.concatenate(parts) if parts else np.zeros(0)
    parts = [_stack(x, what) if isinstance(x, (list, tuple)) else to_array(x, what) for x in values]
    if len({part.shape for part in parts}) > 1:
        raise DataError(f"{what}: {len(parts)} parts whose shapes differ")
    return np.stack(parts)


def flatten_runs(value: Any, what: str) -> Any:
    """Convert a list that contains runs of floats to an array, so that each number is a sample.

    Other values are returned as they are.

    Raises:
        DataError: the list contains anything but numbers.
    """
    if isinstance(value, (list, tuple)) and any(isinstance(x, Floats) for x in value):
        return to_array(value, what)
    return value


def length(value: Any, what: str) -> int:
    """Return the number of samples in an entry.

    Raises:
        DataError: neither an array nor a list.
    """
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim):
        return len(value)
    raise DataError(f"{what}: expected an array or a list, found {type(value).__name__}")


def sequence(value: Any, what: str) -> NDArray[Any]:
    """Convert a sample to features (T, d). A vector (d,) is a sequence of one step.

    Raises:
        DataError: not numeric, or not of these shapes.
    """
    array = to_array(value, what)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{what}: expected a numeric array (T, d), found {array.dtype} {array.shape}")
    return array


def text(value: Any, what: str) -> str:
    """Convert a value to a string; byte strings are text written by Python 2.

    Raises:
        DataError: neither text nor an integer, or half of a surrogate pair.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1).tolist()[0]
    if isinstance(value, (bytes, memoryview)):
        content = bytes(value)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")
    if isinstance(value, str) and any("\ud800" <= c <= "\udfff" for c in value):
        try:  # Python 2 writes characters beyond 16 bits as pairs
            return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
        except UnicodeDecodeError as error:
            raise DataError(f"{what}: half of a surrogate pair in a text") from error
    if isinstance(value, (str, int, np.integer)):
        return str(value)
    raise DataError(f"{what}: expected text, found {type(value).__name__}")


def identifier(value: Any, what: str) -> str:
    """Convert a value to an ID; see `text`.

    Raises:
        DataError: not text, empty, or with control characters, such as a carriage return from a file whose
            lines end in CR LF.
    """
    id = text(value, what)
    if id.endswith("\r"):
        raise DataError(f"{what}: the ID '{printable(id[:60])}' ends in a carriage return: {DAMAGED}")
    if not id or any(unicodedata.category(c) == "Cc" for c in id):
        raise DataError(f"{what}: invalid ID '{printable(id[:60])}': empty, or has control characters")
    return id


def entries(value: Any, what: str) -> dict[str, Any]:
    """Convert the keys of a mapping to strings.

    Raises:
        DataError: not a mapping, or a key is not text.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{what}: expected a mapping, found {type(value).__name__}")
    return {text(key, what): x for key, x in value.items()}


@contextmanager
def _convert_errors(path: Path | str, buffer: memoryview) -> Iterator[None]:
    """Raise all errors inside the block as `DataError`."""
    try:
        yield
    except RefusedError as refused:
        raise DataError(f"{path}: refused, contains {printable(str(refused))}{_damage(buffer)}") from None
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (
        IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, MemoryError, RecursionError,
        AttributeError, zipfile.BadZipFile, NotImplementedError,
    ) as error:  # fmt: skip
        problem = printable(" ".join(str(error).split())[:120])
        if isinstance(error, (KeyError, IndexError)) or not problem:
            problem = "invalid reference"
        raise DataError(f"{path}: corrupt or not a pickle ({problem}){_damage(buffer)}") from error


DAMAGED = "damaged by a transfer in text mode; transfer it again in binary mode"
SAMPLE = 1 << 20
"""Bytes of a file that are searched for line ends."""


def _check_lines(path: Path, buffer: memoryview) -> None:
    """Check the lines of a pickle of protocol 0, which is text.

    Raises:
        DataError: all end in CR LF, because of which text would be read with a carriage return at its end.
    """
    is_text = not re.search(rb"[\x00-\x08\x0e-\x1f]", bytes(buffer[:SAMPLE]))
    if is_text and bytes(buffer[:1]) != b"\x80" and (damage := _damage(buffer)):
        raise DataError(f"{path}: not a valid pickle{damage}")


def _damage(buffer: memoryview) -> str:
    """Describe how a file was damaged by a transfer in text mode; empty if there is no sign of it."""
    sample = bytes(buffer[:SAMPLE])
    if re.match(rb"\xef\xbf\xbd|\xc2\x80", sample):  # 0x80, which begins a pickle, decoded and encoded
        return f"; its bytes were converted to UTF-8: {DAMAGED}"
    feeds = sample.count(b"\n")
    if feeds and feeds == sample.count(b"\r\n"):
        return f"; each line feed follows a carriage return: {DAMAGED}"
    return ""


def _map(path: Path) -> memoryview:
    with open_file(path) as opened:
        if not os.fstat(opened.fileno()).st_size:
            raise DataError(f"{path}: the file is empty")
        try:
            return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error})") from error
