"""Writing stores: samples are validated one by one, and the finished store is renamed into place."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carat.data.gaps import describe_gaps
from carat.data.store.flat_file import FlatFile
from carat.data.store.layout import (
    CORPORA,
    GRADES,
    GROUPS,
    IDS,
    INTENSITIES,
    KNOWN,
    LABELS,
    SPLIT,
    TRANSCRIPT_OFFSETS,
    TRANSCRIPTS,
    feature_file,
    offset_file,
)
from carat.data.store.manifest import (
    MANIFEST,
    SCHEMA,
    SCHEMA_ALL_KNOWN,
    FileInfo,
    Manifest,
    ModalityInfo,
    Tokens,
    Waveform,
    check_names,
    fingerprint,
    hash_file,
)
from carat.data.store.publishing import STORE, publish
from carat.data.store.store import open_store
from carat.data.store.targets import from_targets
from carat.data.store.transform import Transform
from carat.features.description import Description
from carat.utils.errors import DataError, shorten
from carat.utils.files import name_file
from carat.utils.logging import logger
from carat.utils.output_folder import check_folder

DTYPES: dict[np.dtype[Any], Literal["float16", "float32", "int32"]] = {
    np.dtype(np.float16): "float16",
    np.dtype(np.float32): "float32",
    np.dtype(np.int32): "int32",
}
MAX_NAME = 256
"""Maximum length of IDs and groups in characters; all take the space of the longest one."""


class StoreWriter:
    """Context manager that writes a store atomically.

    The store is written to a temporary folder in the parent of the target and renamed into place when the
    block ends. If the block raises or the process is killed, no store is written and an existing one is kept.

    Args:
        path: folder of the store.
        name: name of the dataset.
        labels: label names, in the order of the L axis.
        sources: identifier of the extractor by modality, in the order of the modalities.
        splits: split names.
        dtype: data type of the features on disk, "float16" or "float32".
        non_finite: modalities that may contain inf and NaN, to reproduce the authors' released code.
        encoder_inputs: specification of the modalities that hold tokens or audio instead of features.
        extractions: how modalities were extracted from media files.
        alignments: how the words got their times over which modalities were averaged.
        overwrite: replace an existing store.
        strict: refuse a store with gaps, see `describe_gaps`, instead of warning about them.

    Raises:
        DataError: invalid names or dtype, the target exists, or a sample is invalid.

    Example:
        with StoreWriter("my-store", "mine", ["sad"], {"text": "glove"}, ["train"]) as writer:
            writer.append("clip1", "train", [1], {"text": features})
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        name: str,
        labels: Sequence[str],
        sources: Mapping[str, str],
        splits: Sequence[str],
        *,
        dtype: str = "float32",
        non_finite: Collection[str] = (),
        encoder_inputs: Mapping[str, Tokens | Waveform] | None = None,
        extractions: Mapping[str, Description] | None = None,
        alignments: Mapping[str, Description] | None = None,
        overwrite: bool = False,
        strict: bool = False,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise DataError(f"dtype must be float16 or float32, found '{dtype}'")
        for what, names in (("label", labels), ("modality", list(sources)), ("split", splits)):
            try:
                check_names(what, names)
            except ValueError as error:
                raise DataError(str(error)) from error
        self.path = Path(path).resolve()
        self.name = name
        self.labels = list(labels)
        self.sources = dict(sources)
        self.splits = list(splits)
        self.dtype = np.dtype(dtype)
        self.non_finite = frozenset(non_finite)
        self.encoder_inputs = dict(encoder_inputs or {})
        self.extractions, self.alignments = dict(extractions or {}), dict(alignments or {})
        self.cleaning: dict[str, list[str]] = {m: [] for m in sources}
        self.transforms: dict[str, Transform] = {}
        self.notes: list[str] = []
        self.overwrite, self.strict = overwrite, strict
        check_folder(STORE, self.path, overwrite=overwrite)
        self._features: dict[str, FlatFile] = {}
        self._offsets: dict[str, list[int]] = {m: [0] for m in sources}
        self._ids: dict[str, None] = {}
        self._groups: list[str] = []
        self._split_codes: list[int] = []
        self._labels: list[NDArray[np.uint8]] = []
        self._known: list[NDArray[np.bool_]] = []
        self._intensities: list[NDArray[np.float32]] = []
        self._grades: list[NDArray[np.float32]] = []
        self._transcripts: list[bytes] = []
        self._corpora: list[str] = []

    def __enter__(self) -> Self:
        self._created_parents = [folder for folder in self.path.parents if not folder.exists()]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = Path(
            tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=".unfinished", dir=self.path.parent)
        )
        (self._temporary / "features").mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            with name_file(self.path):
                if isinstance(error, OSError):
                    raise error
                if error is None:
                    self._finish()
        finally:
            for flat in self._features.values():
                flat.abandon()
            shutil.rmtree(self._temporary, ignore_errors=True)
            if not self.path.exists():
                for folder in self._created_parents:
                    folder.rmdir()

    def append(
        self,
        id: str,
        split: str,
        labels: ArrayLike,
        features: Mapping[str, ArrayLike],
        *,
        group: str = "",
        transcript: str = "",
        intensities: ArrayLike | None = None,
        grades: ArrayLike | None = None,
        corpus: str = "",
    ) -> None:
        """Append a sample.

        Args:
            id: unique sample ID.
            split: one of the writer's splits.
            labels: (L,), 0 or 1; NaN or None where unknown.
            features: finite (T, d) arrays by modality; absent modalities are omitted or have T = 0.
            group: video or dialogue of the sample; defaults to the ID.
            transcript: spoken words.
            intensities: (L,) label intensities; given for all samples or none.
            grades: (L,) graded labels in [0, 1], such as shares of votes; given for all samples or none.
                Their values at unknown labels are ignored.
            corpus: corpus from which the sample comes, in stores of several.

        Raises:
            DataError: invalid sample.
        """
        for name in (id, group):
            if len(name) > MAX_NAME:
                raise DataError(
                    f"sample '{shorten(name, 60)}': IDs and groups have at most {MAX_NAME} characters"
                )
        if id in self._ids:
            raise DataError(f"sample '{id}': duplicate id")
        if split not in self.splits:
            raise DataError(
                f"sample '{id}': unknown split '{split}', expected one of {', '.join(self.splits)}"
            )
        try:
            present, known = from_targets(labels, len(self.labels))
        except ValueError as error:
            raise DataError(f"sample '{id}': {error}") from error
        arrays = {m: self._check_features(id, m, x) for m, x in features.items()}
        if not any(len(x) for x in arrays.values()):
            raise DataError(f"sample '{id}': no modality is present, expected at least one")
        for modality, offsets in self._offsets.items():
            array = arrays.get(modality)
            if array is not None and len(array):
                self._feature_file(modality, array.shape[1]).append(array)
            offsets.append(offsets[-1] + (0 if array is None else len(array)))
        self._ids[id] = None
        self._groups.append(group or id)
        self._split_codes.append(self.splits.index(split))
        self._labels.append(present)
        self._known.append(known)
        self._transcripts.append(transcript.encode())
        self._corpora.append(corpus)
        if intensities is not None:
            self._intensities.append(np.asarray(intensities, dtype=np.float32))
        if grades is not None:
            self._grades.append(self._check_grades(id, grades, known))

    def _check_grades(self, id: str, grades: ArrayLike, known: NDArray[np.bool_]) -> NDArray[np.float32]:
        array = np.asarray(grades, dtype=np.float32)
        if array.shape != known.shape or not ((array[known] >= 0) & (array[known] <= 1)).all():
            raise DataError(f"sample '{id}': grades must be {len(known)} values in [0, 1], found {array}")
        return np.where(known, array, 0).astype(np.float32)

    def counts(self) -> dict[str, int]:
        """Number of samples appended so far by split."""
        return {split: self._split_codes.count(code) for code, split in enumerate(self.splits)}

    def _check_features(self, id: str, modality: str, features: ArrayLike) -> NDArray[Any]:
        if modality not in self.sources:
            raise DataError(
                f"sample '{id}': unknown modality '{modality}', expected one of {', '.join(self.sources)}"
            )
        array = np.asarray(features)
        if array.ndim != 2 or array.dtype.kind not in "fiu":
            raise DataError(
                f"sample '{id}', {modality}: expected a numeric array (T, d), "
                f"found {array.dtype} {array.shape}"
            )
        file = self._features.get(modality)
        if len(array) and file is not None and array.shape[1] != file.width:
            raise DataError(
                f"sample '{id}', {modality}: width {array.shape[1]}, but earlier samples have {file.width}"
            )
        tokens = self.encoder_inputs.get(modality)
        if isinstance(tokens, Tokens) and not tokens.is_valid(array):
            raise DataError(f"sample '{id}', {modality}: expected {tokens.expected}")
        with np.errstate(over="ignore"):
            array = array.astype(self._dtype(modality))
        if modality not in self.non_finite and not np.isfinite(array).all():
            raise DataError(f"sample '{id}', {modality}: inf or NaN in {self.dtype}, expected finite values")
        return array

    def _dtype(self, modality: str) -> np.dtype[Any]:
        is_tokens = isinstance(self.encoder_inputs.get(modality), Tokens)
        return np.dtype(np.int32) if is_tokens else self.dtype

    def _feature_file(self, modality: str, width: int) -> FlatFile:
        if modality not in self._features:
            path = self._temporary / feature_file(modality)
            self._features[modality] = FlatFile(path, width, self._dtype(modality))
        return self._features[modality]

    def _finish(self) -> None:
        counts = self.counts()
        for split, count in counts.items():
            if not count:
                raise DataError(f"split '{split}' has no samples")
        for modality in self.sources:
            if modality not in self._features:
                raise DataError(f"modality '{modality}' is absent from every sample")
            self._features[modality].close()
            self._save(offset_file(modality), np.array(self._offsets[modality], dtype=np.int64))
        labels = np.stack(self._labels)
        self._report_gaps(labels)
        self._save(LABELS, labels)
        if not (known := np.stack(self._known)).all():
            self._save(KNOWN, known)
        self._save(SPLIT, np.array(self._split_codes, dtype=np.int8))
        self._save(IDS, np.array(list(self._ids)))
        self._save(GROUPS, np.array(self._groups))
        if any(self._corpora):
            self._save(CORPORA, np.array(self._corpora))
        for name, rows in ((INTENSITIES, self._intensities), (GRADES, self._grades)):
            if rows and len(rows) != len(self._ids):
                raise DataError(
                    f"{len(rows)} of {len(self._ids)} samples have {name.removesuffix('.npy')}, "
                    "expected all or none"
                )
            if rows:
                self._save(name, np.stack(rows))
        if any(self._transcripts):
            ends = np.cumsum([0, *map(len, self._transcripts)], dtype=np.int64)
            self._save(TRANSCRIPTS, np.frombuffer(b"".join(self._transcripts), dtype=np.uint8))
            self._save(TRANSCRIPT_OFFSETS, ends)
        self._write_manifest(counts)
        open_store(self._temporary)
        publish(self._temporary, self.path, self.overwrite)

    def _report_gaps(self, labels: NDArray[np.uint8]) -> None:
        """Warn about modalities and labels without examples, or raise DataError if strict."""
        codes = np.array(self._split_codes)
        splits = {split: np.flatnonzero(codes == code) for code, split in enumerate(self.splits)}
        present = {m: np.diff(offsets) > 0 for m, offsets in self._offsets.items()}
        for line in describe_gaps(self.labels, labels, present, splits):
            if self.strict:
                raise DataError(f"{self.name}: {line} (--strict)")
            logger.warning(f"note: {self.name}: {line}")

    def _write_manifest(self, counts: dict[str, int]) -> None:
        modalities = {
            m: ModalityInfo(
                width=self._features[m].width,
                dtype=DTYPES[self._dtype(m)],
                steps=self._offsets[m][-1],
                source=source,
                transform=self.transforms.get(m),
                cleaning=self.cleaning[m],
                tokens=spec if isinstance(spec := self.encoder_inputs.get(m), Tokens) else None,
                waveform=spec if isinstance(spec, Waveform) else None,
                extraction=self.extractions.get(m),
                alignment=self.alignments.get(m),
            )
            for m, source in self.sources.items()
        }
        files: dict[str, FileInfo] = {}
        for file in sorted(self._temporary.rglob("*.npy")):
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
            files[file.relative_to(self._temporary).as_posix()] = hash_file(file)
        manifest = Manifest(
            schema_version=SCHEMA if {KNOWN, CORPORA, GRADES} & files.keys() else SCHEMA_ALL_KNOWN,
            name=self.name,
            labels=self.labels,
            modalities=modalities,
            splits=counts,
            files=files,
            fingerprint=fingerprint(self.labels, modalities, counts, files),
            notes=self.notes,
        )
        with (self._temporary / MANIFEST).open("w", encoding="utf-8") as opened:
            json.dump(manifest.model_dump(), opened, indent=2)
            opened.flush()
            os.fsync(opened.fileno())

    def _save(self, name: str, array: NDArray[Any]) -> None:
        np.save(self._temporary / name, array, allow_pickle=False)
