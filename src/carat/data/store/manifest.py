"""The manifest of a store, `manifest.json`."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator

from carat.config.base import Count, Positive, Section, explain
from carat.data.store.transform import Transform
from carat.features.description import Description
from carat.utils.errors import DataError
from carat.utils.reading import hash_file as hash_regular
from carat.utils.reading import read_json

SCHEMA = 2
"""Newest schema that is read, of stores with unknown or graded labels, or several corpora; all others have
`SCHEMA_ALL_KNOWN`."""
SCHEMA_ALL_KNOWN = 1
MANIFEST = "manifest.json"
Width = Annotated[int, Field(gt=0, le=1 << 18)]
"""Features per step."""
MODALITY = re.compile(r"[A-Za-z0-9_-]+")
MAX_SPLITS = 127
KINDS_OF_NAMES = {"labels": "label", "modalities": "modality", "splits": "split"}
RESERVED = "_offsets"
"""End of names of files, which the name of a modality must not have."""


class FileInfo(Section):
    """Size and checksum of a file of the store."""

    bytes: Annotated[int, Field(ge=0)]
    sha256: str


class Tokens(Section):
    """Specification of a modality whose steps are tokens."""

    tokenizer: str
    """SHA-256 of `tokenizer.json`."""
    vocabulary: Positive
    """Vocabulary size."""
    longest: Positive
    """Length in tokens to which texts were truncated, including special tokens and context."""
    context: Count = 0
    """Maximum number of context tokens on each side of a text."""

    @property
    def expected(self) -> str:
        """Description of valid steps, for error messages."""
        ids = f"token IDs from 0 to {self.vocabulary - 1}"
        return f"{ids}, with token types 0 (text) and then 1 (context)" if self.context else ids

    def is_valid(self, steps: NDArray[Any]) -> bool:
        """Check steps: token IDs (T, 1), or with context IDs and token types (T, 2)."""
        limits = (self.vocabulary, 2) if self.context else (self.vocabulary,)
        return (
            steps.dtype.kind in "iu"
            and steps.shape[1:] == (len(limits),)
            and bool(((steps >= 0) & (steps < limits)).all())
            and not steps[:1, 1:].any()
            and bool((np.diff(steps[:, 1:], axis=0) >= 0).all())
        )


class Waveform(Section):
    """Specification of a modality whose steps are audio samples."""

    rate: Positive
    """Sampling rate in Hz."""


class ModalityInfo(Section):
    """Shape, source and preprocessing of a modality."""

    width: Width
    """Features per step."""
    dtype: Literal["float16", "float32", "int32"]
    steps: Annotated[int, Field(gt=0)]
    """Total time steps of all samples."""
    source: str
    """Identifies the extractor, e.g. `glove:<hash>`; runs warn about features from another source."""
    transform: Transform | None = None
    """Transform applied to the raw features."""
    cleaning: list[str] = []
    """Changes made to the raw features, as text."""
    tokens: Tokens | None = None
    """Set where steps are tokens, the input of an encoder: an ID and, with context, a token type."""
    waveform: Waveform | None = None
    """Set where steps are audio samples, the input of an encoder."""
    extraction: Description | None = None
    """Set where features were extracted from media files: extractor, parameters, packages and models; for
    texts, how speech was recognized."""
    alignment: Description | None = None
    """Set where features were averaged over words: how the words got their times."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        check_specification(self.width, self.transform, self.tokens, self.waveform)
        if (self.dtype == "int32") != (self.tokens is not None):
            raise ValueError(f"data type {self.dtype}; tokens are int32, and nothing else is")
        return self

    @property
    def has_features(self) -> bool:
        """Whether steps are features, and not the input of an encoder."""
        return self.tokens is None and self.waveform is None

    def problem_of(self, steps: NDArray[Any]) -> str:
        """Describe what a store must not contain in the steps (T, width) of a sample, if anything."""
        if self.tokens is not None:
            return "" if self.tokens.is_valid(steps) else f"expected {self.tokens.expected}"
        return "inf or NaN" if self.is_finite and not np.isfinite(steps).all() else ""

    @property
    def is_finite(self) -> bool:
        """Whether values must be finite; those of the authors' released code are left as they are."""
        return self.transform is None or not self.transform.leave_non_finite


def check_specification(
    width: int, transform: Transform | None, tokens: Tokens | None, waveform: Waveform | None
) -> None:
    """Check that the parts of the specification of a modality agree.

    Raises:
        ValueError: they do not.
    """
    if tokens is not None:
        expected = 2 if tokens.context else 1
    elif waveform is not None:
        expected = 1
    else:
        expected = width if transform is None else transform.width - len(set(transform.drop_columns))
    if width != expected:
        raise ValueError(f"width {width}, but its specification results in {expected}")
    if tokens is not None and waveform is not None:
        raise ValueError("both tokens and waveform")


class Manifest(Section):
    """Content of `manifest.json`."""

    schema_version: int
    name: str
    """Name of the dataset."""
    labels: list[str]
    """Label names, in the order of the L axis."""
    modalities: dict[str, ModalityInfo]
    splits: dict[str, int]
    """Samples by split, in the order of the split codes."""
    files: dict[str, FileInfo]
    """By path relative to the store."""
    fingerprint: str
    """SHA-256 of labels, modalities, splits and the checksums of all files."""
    notes: list[str] = []
    """Remarks of the reader that made the store."""

    @field_validator("labels", "modalities", "splits")
    @classmethod
    def _check_names(cls, named: Any, info: ValidationInfo) -> Any:
        check_names(KINDS_OF_NAMES[info.field_name or ""], list(named))
        return named

    @field_validator("splits")
    @classmethod
    def _check_counts(cls, splits: dict[str, int]) -> dict[str, int]:
        if len(splits) > MAX_SPLITS or min(splits.values()) < 1:
            raise ValueError(f"expected at most {MAX_SPLITS} splits, each with samples")
        return splits


def check_names(what: str, names: Sequence[str]) -> None:
    """Check the names of labels, modalities or splits.

    Args:
        what: "label", "modality" or "split".
        names: in order.

    Raises:
        ValueError: there is none, or one is empty, duplicated, or cannot be the name of a file.
    """
    if not names:
        raise ValueError(f"expected at least one {what}")
    for name in names:
        if what == "modality" and (not MODALITY.fullmatch(name) or name.endswith(RESERVED)):
            raise ValueError(
                f"modality '{name}': names consist of letters, digits, '_' and '-' and must not end in "
                f"'{RESERVED}'"
            )
        if not name.strip():
            raise ValueError(f"empty {what} name")
    if len(set(names)) < len(names):
        raise ValueError(f"duplicate {what} '{next(name for name in names if names.count(name) > 1)}'")


def fingerprint(
    labels: list[str],
    modalities: dict[str, ModalityInfo],
    splits: dict[str, int],
    files: dict[str, FileInfo],
) -> str:
    """Compute the fingerprint of a store: equal for equal content, whatever the folder or name."""
    content = {
        "labels": labels,
        # without defaults, so that fields added in later versions do not change existing fingerprints
        "modalities": {m: info.model_dump(exclude_defaults=True) for m, info in modalities.items()},
        "splits": splits,
        "files": {name: info.sha256 for name, info in sorted(files.items())},
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def hash_file(path: Path) -> FileInfo:
    """Compute the size and SHA-256 of a file."""
    return FileInfo(bytes=path.stat().st_size, sha256=hash_regular(path))


def read_manifest(folder: Path) -> Manifest:
    """Read and validate the manifest of a store folder.

    Raises:
        DataError: not a store, a store of a newer schema, or an altered manifest.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: no such store (build one with `carat data build` or `carat data synth`)")
    if not os.path.lexists(path):
        raise DataError(f"{folder}: not a carat store, {MANIFEST} is missing")
    content = read_json(path)
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise DataError(
            f"{folder}: store schema {version}, but this version of carat reads up to {SCHEMA}; upgrade carat"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, Manifest)}") from error
    actual = fingerprint(manifest.labels, manifest.modalities, manifest.splits, manifest.files)
    if actual != manifest.fingerprint:
        raise DataError(f"{path}: altered (content does not match the fingerprint); build the store again")
    return manifest
