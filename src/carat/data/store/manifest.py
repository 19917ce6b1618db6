"""What a store says about itself: `manifest.json`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from carat.config.base import Section, explain
from carat.data.store.transform import Transform
from carat.utils.errors import DataError

SCHEMA = 1
MANIFEST = "manifest.json"


class FileInfo(Section):
    """Size and content of one file of the store."""

    bytes: int
    sha256: str


class Tokens(Section):
    """What the ids of a modality of tokens mean."""

    tokenizer: str
    """SHA-256 of the `tokenizer.json` that made them."""
    vocabulary: int
    """How many ids there are."""
    longest: int
    """Tokens at which texts were cut, special ones and those of the context included."""
    context: int = 0
    """Tokens on either side, of what was said before and after, that a text is read with."""

    @property
    def described(self) -> str:
        """What fits, in words."""
        ids = f"from 0 to {self.vocabulary - 1}"
        return f"{ids}, beside them 0 for own ones, then 1 for those of the context" if self.context else ids

    def fit(self, steps: NDArray[Any]) -> bool:
        """Whether these (T, 1), or with context (T, 2), are steps of it."""
        limits = (self.vocabulary, 2) if self.context else (self.vocabulary,)
        return (
            steps.dtype.kind in "iu"
            and steps.shape[1:] == (len(limits),)
            and bool(((steps >= 0) & (steps < limits)).all())
            and not steps[:1, 1:].any()
            and bool((np.diff(steps[:, 1:], axis=0) >= 0).all())
        )


class Waveform(Section):
    """What the numbers of a modality of sound mean."""

    rate: int
    """Samples per second."""


class ModalityInfo(Section):
    """One modality: features per step, total steps, and where they come from."""

    width: int
    dtype: Literal["float16", "float32", "int32"]
    steps: int
    source: str
    """Identifies the extractor, e.g. `glove:<hash>`; a run says so when it meets another."""
    transform: Transform | None = None
    """What was done to the raw features."""
    cleaning: list[str] = []
    """What was changed on the way in, in words."""
    tokens: Tokens | None = None
    """A step is a token that an encoder reads before the method does: its id and, with context, its type."""
    waveform: Waveform | None = None
    """A step is a sample of sound, which an encoder reads before the method does."""

    @property
    def has_features(self) -> bool:
        """Whether its steps are features, which need no encoder."""
        return self.tokens is None and self.waveform is None


class Manifest(Section):
    """Contents of `manifest.json`."""

    schema_version: int
    name: str
    labels: list[str]
    modalities: dict[str, ModalityInfo]
    splits: dict[str, int]
    """Samples by split, in the order of the split codes."""
    files: dict[str, FileInfo]
    fingerprint: str
    """SHA-256 over names, labels, modalities, splits and the hash of every file."""
    notes: list[str] = []


def fingerprint(
    labels: list[str],
    modalities: dict[str, ModalityInfo],
    splits: dict[str, int],
    files: dict[str, FileInfo],
) -> str:
    """Identifies the content: equal stores have equal fingerprints, whatever their folder or name."""
    content = {
        "labels": labels,
        # without defaults: a field that a later version adds leaves old fingerprints as they are
        "modalities": {m: info.model_dump(exclude_defaults=True) for m, info in modalities.items()},
        "splits": splits,
        "files": {name: info.sha256 for name, info in sorted(files.items())},
    }
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def hash_file(path: Path) -> FileInfo:
    """Size and SHA-256 of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileInfo(bytes=path.stat().st_size, sha256=digest)


def read_manifest(folder: Path) -> Manifest:
    """The checked manifest of a store folder.

    Raises:
        DataError: no store, a store of a newer schema, or a manifest that was altered.
    """
    path = folder / MANIFEST
    if not folder.is_dir():
        raise DataError(f"{folder}: no such store (build one with `carat data build` or `carat data synth`)")
    if not path.is_file():
        raise DataError(f"{folder}: not a carat store, {MANIFEST} is missing")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from error
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA:
        raise DataError(
            f"{folder}: store of schema {version}, this carat reads up to {SCHEMA}; upgrade carat to open it"
        )
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{path}: {explain(error, Manifest)}") from error
    found = fingerprint(manifest.labels, manifest.modalities, manifest.splits, manifest.files)
    if found != manifest.fingerprint:
        raise DataError(f"{path}: altered, its content no longer matches its fingerprint")
    return manifest
