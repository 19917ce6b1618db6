"""Safe reading of pickles: plain data, NumPy arrays and torch tensors, without Python's unpickler.

Arrays are views of the memory-mapped file where possible.
"""

from __future__ import annotations

import mmap
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.pickled.globals import Floats, RefusedError
from carat.data.pickled.machine import Machine
from carat.data.pickled.torch_files import LEGACY_MAGIC, read_archive, read_legacy
from carat.utils.errors import DataError


def read_pickle(file: str | os.PathLike[str]) -> Any:
    """Read a pickle file, or a file written by `torch.save`. No code in it is executed.

    Args:
        file: `.pkl` or `.pt` file.

    Returns:
        Plain data. OrderedDict and defaultdict are returned as dict, tensors as arrays, text of Python 2 as
        bytes, long byte strings as views, and long runs of floats in a list as `Floats`, which `to_array`
        converts.

    Raises:
        DataError: the file cannot be read, is corrupt, or contains anything but plain data, arrays and
            tensors.
    """
    path = Path(file)
    with _convert_errors(path):
        buffer = _map(path)
        if bytes(buffer[:4]) == b"PK\x03\x04":
            return read_archive(path, buffer)
        machine = Machine(buffer)
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
    with _convert_errors(what):
        return Machine(buffer).run()


def to_array(value: Any, what: str) -> NDArray[Any]:
    """Convert a number, or nested lists of numbers and arrays of equal shape, to an array.

    Args:
        value: part of a pickle.
        what: name of the value in error messages.

    Raises:
        DataError: the value cannot be converted.
    """
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, (int, float)):
        return np.asarray(value)
    if not isinstance(value, (list, tuple)):
        raise DataError(f"{what}: expected numbers, found {type(value).__name__}")
    if all(isinstance(x, (int, float, Floats)) for x in value):
        parts = [x.values if isinstance(x, Floats) else np.array([x], dtype=np.float64) for x in value]
        return np.concatenate(parts) if parts else np.zeros(0)
    parts = [to_array(x, what) for x in value]
    if len({part.shape for part in parts}) > 1 or parts[0].nbytes * len(parts) > 1 << 33:
        raise DataError(f"{what}: {len(parts)} parts whose shapes differ or are too large")
    return np.stack(parts)


def length(value: Any, what: str) -> int:
    """Return the number of samples in an entry.

    Raises:
        DataError: neither an array nor a list.
    """
    if isinstance(value, np.ndarray) and value.ndim:
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(len(x.values) if isinstance(x, Floats) else 1 for x in value)
    raise DataError(f"{what}: expected an array or a list, found {type(value).__name__}")


def item(value: Any, i: int) -> Any:
    """Return sample i of an entry; each number in a run of floats is a sample."""
    if isinstance(value, (list, tuple)) and any(isinstance(x, Floats) for x in value):
        return to_array(value, "a list of numbers")[i]
    return value[i]


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
        DataError: neither text nor an integer.
    """
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1).tolist()[0]
    if isinstance(value, (bytes, memoryview)):
        content = bytes(value)
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return content.decode("latin-1")
    if isinstance(value, (str, int)):
        return str(value)
    raise DataError(f"{what}: expected text, found {type(value).__name__}")


def entries(value: Any, what: str) -> dict[str, Any]:
    """Convert the keys of a mapping to strings.

    Raises:
        DataError: not a mapping, or a key is not text.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{what}: expected a mapping, found {type(value).__name__}")
    return {text(key, what): x for key, x in value.items()}


@contextmanager
def _convert_errors(path: Path | str) -> Iterator[None]:
    """Raise all errors inside the block as `DataError`."""
    try:
        yield
    except RefusedError as refused:
        raise DataError(f"{path}: refused, contains {refused}") from None
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    except (
        IndexError, KeyError, ValueError, TypeError, struct.error, OverflowError, MemoryError, RecursionError,
        AttributeError, zipfile.BadZipFile, NotImplementedError,
    ) as error:  # fmt: skip
        problem = " ".join(str(error).split())[:120]
        if isinstance(error, (KeyError, IndexError)) or not problem:
            problem = "invalid reference"
        raise DataError(f"{path}: corrupt or not a pickle ({problem})") from error


def _map(path: Path) -> memoryview:
    with path.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            raise ValueError("the file is empty")
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
