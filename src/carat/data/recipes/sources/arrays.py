"""Feature arrays that a user already has: `.npz` or `.npy`, looked up by id."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError, did_you_mean


class ArraySource:
    """Features by key; a vector (d,) counts as a sequence of one step.

    Three layouts: an `.npz` whose array names are the keys; an `.npz` with one array of keys and one of
    values (N, d) or (N, T, d); an `.npy` of values with an `.npy` of keys beside it. In the last two, places
    from 0 are the keys where none are named.

    Args:
        file: `.npz` or `.npy`.
        values: in an `.npz` of the second layout, name of the values.
        keys: in an `.npz` of the second layout, name of the keys; for an `.npy`, file of the keys; or None.

    Raises:
        DataError: names the file, what was found and what was expected.
    """

    def __init__(self, file: Path, values: str | None = None, keys: str | None = None) -> None:
        self.file = file
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        self.id = f"array:{hash_file(file).sha256[:12]}" + (f":{values}" if values else "")
        loaded = load_arrays(file)
        if isinstance(loaded, dict) and values is None:
            self.values: Any = loaded
            self.place: dict[str, Any] = {key: key for key in loaded}
            return
        self.values = _member(file, loaded, values or "") if isinstance(loaded, dict) else loaded
        if keys is None:
            names: Any = np.arange(len(self.values) if self.values.ndim else 0)
        elif isinstance(loaded, dict):
            names = _member(file, loaded, keys)
        else:
            names = load_arrays(file.parent / keys)
        if self.values.ndim < 2:
            raise DataError(f"{file}: expected values (N, d) or (N, T, d), found {self.values.shape}")
        if not isinstance(names, np.ndarray) or names.shape != self.values.shape[:1]:
            raise DataError(f"{file}: {len(self.values)} values, but keys of shape {np.shape(names)}")
        self.place = {str(name): row for row, name in enumerate(names)}
        if len(self.place) < len(names):
            raise DataError(f"{file}: a key occurs twice in '{keys}'")

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """(T, d) for each key, None where the file has nothing for it."""
        return [self._one(key) for key in keys]

    def report(self) -> list[str]:
        """Nothing to say."""
        return []

    def _one(self, key: str) -> NDArray[Any] | None:
        if key not in self.place:
            return None
        array = np.asarray(self.values[self.place[key]])
        array = array[None] if array.ndim == 1 else array
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise DataError(f"{self.file}, '{key}': expected numbers (T, d) or (d,), found {array.shape}")
        return array


def load_arrays(file: Path) -> Any:
    """An `.npy` as an array, an `.npz` as a dict of arrays; never runs code.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        loaded = np.load(file, allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        problem = str(error).splitlines()[0]
        if "pickle" in problem:  # numpy's advice here is dangerous, and mostly the file is no NumPy file
            problem = "no .npz or .npy of plain numbers or text"
        raise DataError(f"{file}: cannot be read ({problem})") from error


def _member(file: Path, arrays: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in arrays:
        hint = did_you_mean(name, arrays) or f"; it has: {', '.join(arrays)}"
        raise DataError(f"{file}: no array '{name}'{hint}")
    return arrays[name]
