"""Import of published datasets by name, the public function `carat.import_corpus`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from carat.data.corpora.registry import Sources, import_data
from carat.data.store import Store
from carat.utils.errors import ConfigError, did_you_mean

FILES = ("labels", "words", "text", "visual", "audio", "folds")
"""Sources that are files; the others are options."""


def import_corpus(
    format: str,
    file: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    sources: Sources | Mapping[str, Any] | None = None,
    keep_padding: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
    strict: bool = False,
) -> Store:
    """Import a published dataset into a store. Code in pickle files is never executed.

    Leading and trailing steps of zeros are stripped, and inf and NaN are replaced by 0; both are counted in
    the manifest.

    Args:
        format: "mosei-aligned", "mosei-unaligned", "mmsa", "csd", "m3ed" or "erc"; docs/how-to/corpora.md.
        file: main file of the dataset; None for "csd", whose files are all sources.
        out: folder of the store.
        sources: additional files and options, named like the options of `carat data import`: the files
            `labels`, `words`, `text`, `visual`, `audio` and `folds`, and the options `unaligned`, `by_index`,
            `level` ("dialogue" or "utterance") and `as_released`.
        keep_padding: do not strip leading and trailing zeros.
        dtype: data type of the features on disk.
        overwrite: replace an existing store.
        strict: refuse data in which no training sample has a modality, or a split has no positive sample of a
            label, instead of warning.

    Returns:
        The store.

    Raises:
        ConfigError: unknown format or source, or a source is missing or not accepted by the format.
        DataError: invalid data, or the target exists. No store is written.

    Example:
        store = carat.import_corpus("mosei-aligned", "train_valid_test.pt", "mosei")
        store.manifest.modalities["text"].cleaning
    """
    if not isinstance(sources, Sources):
        sources = _make_sources(sources or {})
    options = {"keep_padding": keep_padding, "dtype": dtype, "overwrite": overwrite, "strict": strict}
    return import_data(format, file, out, sources, **options)


def _make_sources(values: Mapping[str, Any]) -> Sources:
    names = [field.name for field in fields(Sources)]
    for name in values:
        if name not in names:
            hint = did_you_mean(name, names) or f"; available: {', '.join(names)}"
            raise ConfigError(f"unknown source '{name}'{hint}")
    paths = {name: Path(values[name]) for name in FILES if values.get(name) is not None}
    return Sources(**{**values, **paths})
