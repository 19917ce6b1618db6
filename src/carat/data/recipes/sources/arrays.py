"""Precomputed features in files of many formats, looked up by key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.pickled.reading import flatten_runs, length, sequence
from carat.data.recipes.sources.csv_features import read_keyed_csv
from carat.data.recipes.sources.feature_files import FeatureFolder, read_feature_file, unwrap
from carat.data.recipes.sources.keys import KeyIndex
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError, did_you_mean


class ArraySource:
    """Read features by key. A vector (d,) is a sequence of one step.

    There are five layouts; in the first, `values` may name a mapping in the file:

    - a file with one array per key, named by the key (no `values`): `.npz`, `.h5`, `.mat`, `.pkl` or `.pt`;
    - such a file with an array of values (N, d) or (N, T, d), or N arrays (T, d), and an array of keys (N,);
    - an `.npy` file of values, and a second one of keys in the same folder;
    - a folder with one file per clip, named by the key: any of these, or `.csv`;
    - a `.csv` file with a column of keys and one step per row.

    Keys default to the indices 0 to N - 1. A file extension may be missing from the keys on either side.

    Args:
        file: file or folder.
        values: name of the array of values in a file with several arrays.
        keys: name of the array of keys in such a file, file name of the keys of an `.npy` file, or column of
            a `.csv` file.
        columns: columns of `.csv` files, see `read_csv`.

    Raises:
        DataError: the file cannot be read, or its arrays have an unexpected shape.
    """

    def __init__(
        self,
        file: Path,
        values: str | None = None,
        keys: str | None = None,
        columns: list[str] | None = None,
    ) -> None:
        self.file = file
        self.values: Any
        """Values by key or index."""
        if file.is_dir():
            if values or keys:
                raise DataError(
                    f"{file}: `values` and `keys` are for files; in a folder, file names are keys"
                )
            folder = FeatureFolder(file, columns)
            self.id, self.values = f"folder:{folder.id}", folder
            self.index = KeyIndex({key: key for key in folder})
            return
        if file.suffix.lower() == ".csv":
            if keys is None:
                raise DataError(f"{file}: name the column with the keys, keys: COLUMN")
            content: Any = read_keyed_csv(file, keys, columns)
            values = keys = None
        else:
            content = read_feature_file(file, columns)
        self.id = f"array:{hash_file(file).sha256[:12]}" + (f":{values}" if values else "")
        if isinstance(content, Mapping) and values is None:
            self.values = content
            self.index = KeyIndex({key: key for key in content})
            return
        content_values = _get_array(file, content, values or "") if isinstance(content, Mapping) else content
        if isinstance(unwrapped := unwrap(content_values, f"{file}, values"), Mapping):
            self.values = unwrapped
            self.index = KeyIndex({key: key for key in unwrapped})
            return
        self.values = flatten_runs(content_values, f"{file}, values")
        self.index = KeyIndex(_positions(file, self.values, _read_keys(file, content, self.values, keys)))

    def read(self, keys: Sequence[str]) -> list[NDArray[Any] | None]:
        """Read features (T, d) by key; None for keys that are not in the file."""
        return [self._read_one(key) for key in keys]

    def report(self) -> list[str]:
        """Say which keys did not match exactly."""
        count = self.index.without_extension
        return [f"{count} keys matched without their file extension"] if count else []

    def describe_missing(self) -> str:
        """Describe the keys that were not found, or return an empty string."""
        return f"{self.file}: {self.index.describe_missing()}" if self.index.missing else ""

    def _read_one(self, key: str) -> NDArray[Any] | None:
        position = self.index.get(key)
        if position is None:
            return None
        return sequence(self.values[position], f"{self.file}, '{key}'")


def _read_keys(file: Path, content: Any, values: Any, keys: str | None) -> list[str]:
    """Keys of the values, in order."""
    count = length(values, f"{file}, values")
    if keys is None:
        return [str(i) for i in range(count)]
    if isinstance(content, Mapping):
        array: Any = _get_array(file, content, keys)
    else:
        array = read_feature_file(file.parent / keys)
    if isinstance(array, np.ndarray):  # MATLAB has rows and columns only
        array = array.reshape(-1) if array.size == max(array.shape, default=0) else array
    named = length(array, f"{file}, '{keys}'")
    if named != count or (isinstance(array, np.ndarray) and array.ndim != 1):
        raise DataError(f"{file}: {count} values, but {named} keys; expected one key per value")
    return [_as_key(key) for key in array]


def _positions(file: Path, values: Any, keys: list[str]) -> dict[str, int]:
    """Position in the values by key."""
    if isinstance(values, np.ndarray) and values.dtype.kind != "O" and values.ndim < 2:
        raise DataError(f"{file}: expected values (N, d) or (N, T, d), found {values.shape}")
    positions = {key: i for i, key in enumerate(keys)}
    if len(positions) < len(keys):
        raise DataError(f"{file}: duplicate keys, e.g. '{next(key for key in keys if keys.count(key) > 1)}'")
    return positions


def _as_key(key: Any) -> str:
    """Convert a key to text; bytes are text of C strings and of Python 2."""
    while isinstance(key, (list, np.ndarray)) and len(key) == 1:  # a cell of MATLAB
        key = key[0]
    if isinstance(key, (bytes, memoryview)):
        return bytes(key).decode("utf-8", "replace")
    return str(key)


def _get_array(file: Path, arrays: Mapping[str, Any], name: str) -> Any:
    if name not in arrays:
        hint = did_you_mean(name, arrays) or f"; available: {', '.join(list(arrays)[:10])}"
        raise DataError(f"{file}: no array '{name}'{hint}")
    return arrays[name]
