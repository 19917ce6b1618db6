"""Reading stores: datasets on disk as flat arrays, offsets and a manifest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store.layout import (
    CORPORA,
    GRADES,
    GROUPS,
    IDS,
    INTENSITIES,
    KNOWN,
    LABELS,
    SPLIT,
    TEXT,
    TRANSCRIPT_OFFSETS,
    TRANSCRIPTS,
    feature_file,
    offset_file,
)
from carat.data.store.manifest import Manifest, hash_file, read_manifest
from carat.data.store.targets import to_targets
from carat.data.store.validation import altered, check_content, expected_arrays
from carat.utils.errors import DataError, did_you_mean
from carat.utils.reading import check_regular
from carat.utils.tables import Table


@dataclass(frozen=True)
class Sample:
    """One sample of a store. Arrays are read-only views."""

    id: str
    group: str
    split: str
    labels: NDArray[np.uint8]
    """(L,), 0 or 1; 0 where unknown."""
    known: NDArray[np.bool_]
    """(L,), whether each label is known."""
    features: dict[str, NDArray[np.floating[Any]]]
    """(T, d) by modality, without absent modalities."""
    transcript: str
    """Empty if the store has no transcripts."""


class Store:
    """An open store; see `open_store`. Functions that take the folder of a store accept this object, too.

    Arrays are memory-mapped on first use and not pickled, so that a store can be passed to worker processes.

    Args:
        folder: folder of the store.
        manifest: its validated manifest: name, labels, modalities, splits and fingerprint.

    Example:
        store = carat.open_store("demo-store")
        len(store), store.label_names, store[0].features["text"].shape
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._arrays: dict[str, NDArray[Any]] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}

    def __len__(self) -> int:
        return len(self.labels)

    def __fspath__(self) -> str:
        return str(self.folder)

    def _repr_html_(self) -> str:
        manifest = self.manifest
        rows = [
            ["folder", str(self.folder)],
            ["samples", f"{len(self)}: {', '.join(f'{n} {split}' for split, n in manifest.splits.items())}"],
            ["labels", ", ".join(self.label_names)],
            *([m, f"width {x.width}, {x.steps} steps, {x.source}"] for m, x in manifest.modalities.items()),
            ["fingerprint", manifest.fingerprint[:16]],
            *(["note", note] for note in manifest.notes),
        ]
        return Table(["store", manifest.name], rows).to_html()

    def __repr__(self) -> str:
        return f"Store({self.manifest.name!r}, {len(self)} samples, {', '.join(self.modalities)})"

    def array(self, name: str) -> NDArray[Any]:
        """Open an array file of the store, memory-mapped and read-only.

        Raises:
            DataError: the file is missing or not an array.
        """
        if name not in self._arrays:
            file = self.folder / name
            check_regular(file)
            try:
                self._arrays[name] = np.lib.format.open_memmap(file, mode="r")
            except Exception as error:  # whatever NumPy raises on a header that it did not write
                reason = " ".join(str(error).split())
                raise DataError(f"{file}: cannot be read ({reason})") from error
        return self._arrays[name]

    @property
    def label_names(self) -> list[str]:
        """Label names, in the order of the L axis."""
        return self.manifest.labels

    @property
    def modalities(self) -> list[str]:
        """Modality names."""
        return list(self.manifest.modalities)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(N, L), 0 or 1; 0 where unknown, see `known` and `targets`."""
        return self.array(LABELS)

    @property
    def known(self) -> NDArray[np.bool_]:
        """(N, L), whether each label is known."""
        return self.array(KNOWN) if self.has_unknown else np.broadcast_to(np.True_, self.labels.shape)

    @property
    def has_unknown(self) -> bool:
        """Whether a label of a sample is unknown."""
        return KNOWN in self.manifest.files

    def targets(self, rows: NDArray[np.int64] | Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return the labels of some rows, by default of all: (n, L), 0 or 1, NaN where unknown."""
        selected: Any = slice(None) if rows is None else rows
        return to_targets(self.labels[selected], self.known[selected])

    @property
    def intensities(self) -> NDArray[np.float32] | None:
        """(N, L) label intensities on the scale of the source; None if the store has none."""
        return self.array(INTENSITIES) if INTENSITIES in self.manifest.files else None

    @property
    def grades(self) -> NDArray[np.float32] | None:
        """(N, L) graded labels in [0, 1], 0 where unknown; None if the store has binary labels only."""
        return self.array(GRADES) if GRADES in self.manifest.files else None

    def soft_targets(self, rows: NDArray[np.int64] | Sequence[int] | None = None) -> NDArray[np.float32]:
        """Return the graded labels of some rows, by default of all: (n, L) in [0, 1], NaN where unknown.

        Without graded labels they are the binary ones.
        """
        selected: Any = slice(None) if rows is None else rows
        grades = self.labels if self.grades is None else self.grades
        return to_targets(grades[selected], self.known[selected])

    @property
    def ids(self) -> NDArray[np.str_]:
        """(N,) unique sample IDs."""
        return self.array(IDS)

    @property
    def groups(self) -> NDArray[np.str_]:
        """(N,) video or dialogue of each sample; samples of a group are not independent."""
        return self.array(GROUPS)

    @property
    def corpora(self) -> NDArray[np.str_] | None:
        """(N,) corpus of each sample; None if the store has a single one."""
        return self.array(CORPORA) if CORPORA in self.manifest.files else None

    def indices(self, split: str) -> NDArray[np.int64]:
        """Return the rows of a split, ascending.

        Raises:
            DataError: the store has no such split.
        """
        splits = list(self.manifest.splits)
        if split not in splits:
            hint = did_you_mean(split, splits) or f"; available: {', '.join(splits)}"
            raise DataError(f"{self.folder}: no split '{split}'{hint}")
        return np.flatnonzero(self.array(SPLIT) == splits.index(split))

    def lengths(self, modality: str) -> NDArray[np.int64]:
        """Return the time steps of all samples, (N,); 0 where the modality is absent."""
        return np.diff(self.array(offset_file(modality)))

    def features(self, modality: str, row: int) -> NDArray[np.floating[Any]]:
        """Return the features of a sample, a view of shape (T, d); T is 0 where the modality is absent.

        Raises:
            DataError: the store has no such modality.
            IndexError: row out of range.
        """
        if modality not in self.manifest.modalities:
            hint = did_you_mean(modality, self.modalities) or f"; available: {', '.join(self.modalities)}"
            raise DataError(f"{self.folder}: no modality '{modality}'{hint}")
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        offsets = self.array(offset_file(modality))
        return self.array(feature_file(modality))[offsets[row] : offsets[row + 1]]

    def transcript(self, row: int) -> str:
        """Return the transcript of a sample; empty if the store has no transcripts."""
        if TRANSCRIPTS not in self.manifest.files:
            return ""
        offsets = self.array(TRANSCRIPT_OFFSETS)
        text = bytes(self.array(TRANSCRIPTS)[offsets[row] : offsets[row + 1]])
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{self.folder / TRANSCRIPTS}: row {row} is not UTF-8 ({error.reason})"
            ) from error

    def __getitem__(self, row: int) -> Sample:
        if not -len(self) <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        row %= len(self)
        features = {m: self.features(m, row) for m in self.modalities}
        return Sample(
            id=str(self.ids[row]),
            group=str(self.groups[row]),
            split=list(self.manifest.splits)[self.array(SPLIT)[row]],
            labels=self.labels[row],
            known=self.known[row],
            features={m: x for m, x in features.items() if len(x)},
            transcript=self.transcript(row),
        )

    def verify(self) -> None:
        """Read all files and compare their checksums with the manifest.

        Raises:
            DataError: a file was altered.
        """
        for name in self.manifest.files:
            check_regular(self.folder / name)
        for name, info in self.manifest.files.items():
            if hash_file(self.folder / name) != info:
                raise DataError(f"{self.folder / name}: altered (SHA-256 mismatch); build the store again")


def open_store(path: Store | str | os.PathLike[str]) -> Store:
    """Open a store and check its files: sizes, shapes, data types, labels, splits, ids and offsets.

    Features are not read, and checksums are left to `Store.verify`.

    Args:
        path: folder written by `carat data build`, `carat data import`, `carat data synth` or `StoreWriter`;
            an open store is returned as it is.

    Returns:
        The store; its arrays are read on first use.

    Raises:
        DataError: not a store, a store of a newer schema, or missing, truncated or altered files.

    Example:
        store = carat.open_store("demo-store")
        store.features("text", 0).shape  # (T, d)
    """
    if isinstance(path, Store):
        return path
    folder = Path(path)
    manifest = read_manifest(folder)
    store = Store(folder, manifest)
    expected = expected_arrays(store)
    for name in manifest.files.keys() ^ expected.keys():
        problem = "not listed in the manifest" if name in expected else "no file of a store"
        raise altered(store, name, problem)
    for name, info in manifest.files.items():
        file = folder / name
        if not os.path.lexists(file):
            raise DataError(f"{file}: missing; the store is damaged, build it again")
        check_regular(file)
        size = file.stat().st_size
        if size != info.bytes:
            problem = "truncated" if size < info.bytes else "altered"
            raise DataError(f"{file}: {problem}: {size} bytes, expected {info.bytes}; build the store again")
    for name, (dtype, shape) in expected.items():
        array = store.array(name)
        if array.dtype.kind != dtype if dtype == TEXT else array.dtype != np.dtype(dtype):
            raise altered(
                store, name, f"data type {array.dtype}, expected {'text' if dtype == TEXT else dtype}"
            )
        if array.shape != shape:
            raise altered(store, name, f"shape {array.shape}, expected {shape}")
    check_content(store)
    return store


def open_unchanged(path: str | os.PathLike[str], fingerprint: str) -> Store:
    """Open a store that must still have the content that work was planned for.

    Args:
        path: folder of the store.
        fingerprint: its fingerprint when the work was planned.

    Raises:
        DataError: the store was replaced, or see `open_store`.
    """
    store = open_store(path)
    now = read_manifest(store.folder)  # again: the files were opened since
    for manifest in (store.manifest, now):
        if manifest.fingerprint != fingerprint:
            raise DataError(
                f"{store.folder}: replaced while in use: fingerprint {manifest.fingerprint[:16]}, planned "
                f"with {fingerprint[:16]}; rerun the command on one store"
            )
    return store
