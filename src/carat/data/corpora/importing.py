"""Data sets of the field by name, for `carat.import_corpus`."""

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
"""Sources that are files; the others are choices."""


def import_corpus(
    format: str,
    file: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    *,
    sources: Sources | Mapping[str, Any] | None = None,
    keep_padding: bool = False,
    dtype: Literal["float32", "float16"] = "float32",
    overwrite: bool = False,
) -> Store:
    """Convert a published data file into a store; pickled files are read without running code.

    Leading and trailing steps of zeros are stripped, and inf and NaN become 0; both are counted in the
    store's manifest.

    Args:
        format: "mosei-aligned", "mosei-unaligned", "mmsa", "csd", "m3ed" or "erc", see docs/data.md.
        file: the data file; None for "csd", whose files are all among the sources.
        out: folder of the store.
        sources: further files and choices that the format needs or takes, by the names of the options of
            `carat data import`: files `labels`, `words`, `text`, `visual`, `audio`, `folds`; choices
            `unaligned`, `by_index`, `level` ("dialogue" or "utterance") and `as_released`.
        keep_padding: keep leading and trailing zeros.
        dtype: of the features on disk.
        overwrite: replace an existing store.

    Returns:
        The store.

    Raises:
        ConfigError: unknown format or source, or a source that the format lacks or does not take.
        DataError: the data is wrong; no store is left behind.

    Example:
        store = carat.import_corpus("mosei-aligned", "train_valid_test.pt", "mosei")
        store.manifest.modalities["text"].cleaning
    """
    given = sources if isinstance(sources, Sources) else _sources(sources or {})
    return import_data(format, file, out, given, keep_padding=keep_padding, dtype=dtype, overwrite=overwrite)


def _sources(values: Mapping[str, Any]) -> Sources:
    known = [field.name for field in fields(Sources)]
    for name in values:
        if name not in known:
            hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise ConfigError(f"unknown source '{name}'{hint}")
    paths = {name: Path(values[name]) for name in FILES if values.get(name) is not None}
    return Sources(**{**values, **paths})
