"""Feature files of other programs: arrays by key, one array of all samples, or one file per clip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from carat.data.arrays import ArrayFile, brief, read_array
from carat.data.pickled.reading import entries, read_pickle
from carat.data.recipes.sources.csv_features import read_csv
from carat.utils.errors import DataError, printable
from carat.utils.reading import check_content

MAX_MAT = 1 << 31
"""Limit in bytes of `.mat` files, which are read whole."""


def read_feature_file(file: Path, columns: list[str] | None = None) -> Any:
    """Read a feature file by its ending, one of `READERS`.

    Args:
        file: feature file.
        columns: columns of a `.csv` file, see `read_csv`.

    Returns:
        A mapping of arrays by key, or an array or list of the values of all samples.

    Raises:
        DataError: unknown ending, or the file cannot be read.
    """
    check_content(file)
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return read_csv(file, columns).values
    if suffix not in READERS:
        raise DataError(f"{file}: unknown ending '{suffix}', expected {', '.join([*READERS, '.csv'])}")
    if columns is not None:
        raise DataError(f"{file}: `columns` names columns of .csv files; use drop_columns for arrays")
    return READERS[suffix](file)


class FeatureFolder(Mapping[str, Any]):
    """A folder with one file per clip, read when it is looked up. Keys are relative paths with their endings.

    Args:
        folder: folder; files in subfolders count, hidden files and files of other types do not.
        columns: columns of `.csv` files, see `read_csv`.

    Raises:
        DataError: no feature file in the folder.
    """

    def __init__(self, folder: Path, columns: list[str] | None = None) -> None:
        self.folder, self._columns = folder, columns
        self._first: tuple[Path, list[str]] | None = None
        self._files = {
            file.relative_to(folder).as_posix(): file
            for file in sorted(folder.rglob("*"))
            if file.suffix.lower() in (*READERS, ".csv") and not file.name.startswith(".") and file.is_file()
        }
        if not self._files:
            raise DataError(f"{folder}: no feature file in it, expected {', '.join([*READERS, '.csv'])}")

    @property
    def id(self) -> str:
        """Hash of the names and sizes of the files."""
        listing = "\n".join(f"{name} {file.stat().st_size}" for name, file in self._files.items())
        return hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:12]

    def __getitem__(self, key: str) -> Any:
        file = self._files[key]
        if file.suffix.lower() == ".csv":
            return self._read_csv(file)
        content = read_feature_file(file)
        if isinstance(content, Mapping):
            if len(content) != 1:
                raise DataError(
                    f"{file}: holds {len(content)} arrays ({', '.join(list(content)[:4])}), expected one"
                )
            content = next(iter(content.values()))
        return content

    def _read_csv(self, file: Path) -> Any:
        """Read a `.csv` file, which must have the columns of the first one that was read.

        Raises:
            DataError: it has others, or has them in another order.
        """
        check_content(file)
        features = read_csv(file, self._columns)
        if features.names:
            self._first = self._first or (file, features.names)
            first, names = self._first
            if features.names != names:
                pairs = zip_longest(features.names, names, fillvalue="none")
                column, (found, expected) = next((i, p) for i, p in enumerate(pairs) if p[0] != p[1])
                raise DataError(
                    f"{file}: feature {column} is '{printable(found)}', but '{printable(expected)}' in "
                    f"{first.name}; name the features by columns, in one order"
                )
        return features.values

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)


class Hdf5File(Mapping[str, Any]):
    """The numeric datasets of an HDF5 file by path, each read when it is looked up.

    Args:
        file: `.h5` or `.hdf5` file.

    Raises:
        DataError: the file cannot be read, or the extra `csd` is not installed.
    """

    def __init__(self, file: Path) -> None:
        from carat.data.corpora.hdf5_sandbox import check_readable

        try:
            import h5py  # type: ignore[import-untyped]
        except ImportError as error:
            raise DataError("reading .h5 files needs the extra: pip install 'carat-emotion[csd]'") from error
        check_readable([file])
        self.file = file
        self._names: list[str] = []
        try:
            self._opened = h5py.File(file, "r")
            self._opened.visititems(self._collect)
        except Exception as error:  # corrupt files make h5py raise errors of many types
            raise DataError(f"{file}: cannot be read as HDF5 ({brief(error)})") from error

    def __getitem__(self, name: str) -> Any:
        try:
            dataset = self._opened[name]
            if dataset.nbytes > MAX_MAT and dataset.nbytes > 50 * self.file.stat().st_size:
                raise DataError(f"{self.file}, '{name}': unpacks to {dataset.nbytes} bytes")
            return dataset[()]
        except DataError:
            raise
        except Exception as error:
            raise DataError(f"{self.file}, '{name}': cannot be read as HDF5 ({brief(error)})") from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _collect(self, name: str, item: Any) -> None:
        kind = getattr(getattr(item, "dtype", None), "kind", "")
        if kind and kind in "biufS" and not (item.is_virtual or item.external):
            self._names.append(name)


def unwrap(value: Any, what: str) -> Any:
    """Return the mapping in an array of one object, as which NumPy saves a dict; other values as they are."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "O" and not value.ndim:
        value = value.item()
    return entries(value, what) if isinstance(value, Mapping) else value


def _read_npy(file: Path) -> Any:
    return unwrap(read_array(file), str(file))


def _read_npz(file: Path) -> Any:
    return ArrayFile(file)


def _read_pickled(file: Path) -> Any:
    content = unwrap(read_pickle(file), str(file))
    if isinstance(content, (Mapping, np.ndarray, list)):
        return content
    raise DataError(f"{file}: expected features by key or an array, found {type(content).__name__}")


def _read_mat(file: Path) -> Any:
    """Read the variables of a MATLAB file, version 7 or earlier; cell arrays become arrays of objects."""
    import scipy.io

    if file.stat().st_size > MAX_MAT:
        raise DataError(f"{file}: larger than {MAX_MAT} bytes; save it as .npz")
    try:
        content = scipy.io.loadmat(file, struct_as_record=False)
    except NotImplementedError as error:
        raise DataError(
            f"{file}: MATLAB 7.3 files are not read; save it with: save('{file.name}', '-v7')"
        ) from error
    except (Exception, MemoryError) as error:  # corrupt files make scipy raise errors of many types
        raise DataError(f"{file}: cannot be read as .mat ({brief(error)})") from error
    return {name: _uncell(x) for name, x in content.items() if not name.startswith("__")}


def _uncell(value: Any) -> Any:
    """Make a list of a cell array, which MATLAB always gives two axes, and strip the padding of texts."""
    if isinstance(value, np.ndarray) and value.dtype.kind == "U":
        return np.char.rstrip(value)
    if isinstance(value, np.ndarray) and value.dtype.kind == "O":
        return [_uncell(x) for x in value.reshape(-1)]
    return value


READERS: Mapping[str, Callable[[Path], Any]] = {
    ".npz": _read_npz,
    ".npy": _read_npy,
    ".pkl": _read_pickled,
    ".pickle": _read_pickled,
    ".pt": _read_pickled,
    ".pth": _read_pickled,
    ".h5": Hdf5File,
    ".hdf5": Hdf5File,
    ".mat": _read_mat,
}
"""By ending, readers of arrays by key or of the values of all samples, apart from `.csv`."""
