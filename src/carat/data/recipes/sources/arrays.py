"""Precomputed features in `.npz` or `.npy` files, looked up by key."""

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
    """Read features by key. A vector (d,) is a sequence of one step.

    There are three layouts:

    - an `.npz` file with one array per key, named by the key (no `values`);
    - an `.npz` file with an array of values (N, d) or (N, T, d) and an array of keys (N,);
    - an `.npy` file of values (N, d) or (N, T, d), and an `.npy` file of keys (N,) in the same folder.

    In the last two, keys default to the indices 0 to N - 1.

    Args:
        file: `.npz` or `.npy` file.
        values: name of the array of values in an `.npz` file.
        keys: name of the array of keys in an `.npz` file, or file name of the keys of an `.npy` file.

    Raises:
        DataError: the file cannot be read, or its arrays have an unexpected shape.
    """

    def __init__(self, file: Path, values: str | None = None, keys: str | None = None) -> None:
        self.file = file
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        self.id = f"array:{hash_file(file).sha256[:12]}" + (f":{values}" if values else "")
        loaded = load_arrays(file)
        if isinstance(loaded, dict) and values is None:
            self.values: Any = loaded
            self.index: dict[str, Any] = {key: key for key in loaded}
            return
        self.values = _get_array(file, loaded, values or "") if isinstance(loaded, dict) else loaded
        if keys is None:
            key_array: Any = np.arange(len(self.values) if self.values.ndim else 0)
        elif isinstance(loaded, dict):
            key_array = _get_array(file, loaded, keys)
        else:
            key_array = load_arrays(file.parent / keys)
        if self.values.ndim < 2:
            raise DataError(f"{file}: expected values (N, d) or (N, T, d), found {self.values.shape}")
        if not isinstance(key_array, np.ndarray) or key_array.shape != self.values.shape[:1]:
            raise DataError(
                f"{file}: {len(self.values)} values, but keys of shape {np.shape(key_array)}; expected one "
                "key per value"
            )
        self.index = {str(key): i for i, key in enumerate(key_array)}
        """Position in `values` by key."""
        if len(self.index) < len(key_array):
            raise DataError(f"{file}: duplicate keys in '{keys}'")

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """Read features (T, d) by key; None for keys that are not in the file."""
        return [self._read_one(key) for key in keys]

    def report(self) -> list[str]:
        """Return no remarks."""
        return []

    def _read_one(self, key: str) -> NDArray[Any] | None:
        if key not in self.index:
            return None
        array = np.asarray(self.values[self.index[key]])
        array = array[None] if array.ndim == 1 else array
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise DataError(
                f"{self.file}, '{key}': expected a numeric array (T, d) or (d,), "
                f"found {array.dtype} {array.shape}"
            )
        return array


def load_arrays(file: Path) -> Any:
    """Load an `.npy` file as an array or an `.npz` file as a dict of arrays, without unpickling anything.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        loaded = np.load(file, allow_pickle=False)
        return dict(loaded) if isinstance(loaded, np.lib.npyio.NpzFile) else loaded
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        problem = str(error).splitlines()[0]
        if (
            "pickle" in problem
        ):  # NumPy suggests allow_pickle, which is unsafe; most such files are not NumPy's
            problem = "not an .npz or .npy file of numbers or text"
        raise DataError(f"{file}: cannot be read ({problem})") from error


def _get_array(file: Path, arrays: dict[str, NDArray[Any]], name: str) -> NDArray[Any]:
    if name not in arrays:
        hint = did_you_mean(name, arrays) or f"; available: {', '.join(arrays)}"
        raise DataError(f"{file}: no array '{name}'{hint}")
    return arrays[name]
