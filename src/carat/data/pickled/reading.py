"""Pickles without Python's unpickler: plain data, numpy arrays and torch tensors, and nothing that runs.

Arrays are views of the memory-mapped file wherever the pickle allows it.
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
    """Plain data, numpy arrays and tensors of a `.pkl`, or of a `.pt` that torch wrote.

    Tuples, lists, dicts and sets come as they are; OrderedDict and defaultdict as dict, tensors as arrays,
    Python 2 text as bytes, long byte strings as views, and long runs of floats in a list as `Floats`
    (`to_array` takes all of these).

    Raises:
        DataError: the file cannot be read, is damaged, or names anything else.
    """
    path = Path(file)
    with _told(path):
        buffer = _map(path)
        if bytes(buffer[:4]) == b"PK\x03\x04":
            return read_archive(path, buffer)
        machine = Machine(buffer)
        first = machine.run()
        if isinstance(first, int) and first == LEGACY_MAGIC:
            return read_legacy(buffer, machine.place)
        return first


def to_array(value: Any, what: str) -> NDArray[Any]:
    """Numbers from an array, or from nested lists of numbers and arrays of one shape.

    Raises:
        DataError: something else, named by `what`.
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
        raise DataError(f"{what}: {len(parts)} parts of different or absurd shapes")
    return np.stack(parts)


def length(value: Any, what: str) -> int:
    """How many samples an entry holds.

    Raises:
        DataError: neither array nor list.
    """
    if isinstance(value, np.ndarray) and value.ndim:
        return len(value)
    if isinstance(value, (list, tuple)):
        return sum(len(x.values) if isinstance(x, Floats) else 1 for x in value)
    raise DataError(f"{what}: expected an array or a list, found {type(value).__name__}")


def item(value: Any, i: int) -> Any:
    """The i-th sample of an entry; runs of floats in a list are single numbers again."""
    if isinstance(value, (list, tuple)) and any(isinstance(x, Floats) for x in value):
        return to_array(value, "a list of numbers")[i]
    return value[i]


def sequence(value: Any, what: str) -> NDArray[Any]:
    """(T, d) of one sample; a single vector is one step.

    Raises:
        DataError: something else.
    """
    array = to_array(value, what)
    array = array[None] if array.ndim == 1 else array
    if array.ndim != 2 or array.dtype.kind not in "fiu":
        raise DataError(f"{what}: expected numbers (T, d), found {array.dtype} {array.shape}")
    return array


def text(value: Any, what: str) -> str:
    """A string, also one that Python 2 wrote.

    Raises:
        DataError: something else.
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
    """A mapping with text keys.

    Raises:
        DataError: no mapping.
    """
    if not isinstance(value, Mapping):
        raise DataError(f"{what}: expected a mapping, found {type(value).__name__}")
    return {text(key, what): x for key, x in value.items()}


@contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except RefusedError as refused:
        raise DataError(f"{path}: refused, it holds {refused}") from None
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
            problem = "it refers to what is not there"
        raise DataError(f"{path}: damaged or no pickle ({problem})") from error


def _map(path: Path) -> memoryview:
    with path.open("rb") as opened:
        if not os.fstat(opened.fileno()).st_size:
            raise ValueError("it is empty")
        return memoryview(mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ))
