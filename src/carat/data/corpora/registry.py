"""Registry of dataset formats, and their import into stores."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from carat.data.corpora.base import Corpus, write_corpus
from carat.data.corpora.dialogues import Level, open_erc, open_m3ed
from carat.data.corpora.mmsa import open_mmsa
from carat.data.corpora.mosei_aligned import open_mosei_aligned
from carat.data.corpora.mosei_unaligned import open_mosei_unaligned
from carat.data.store import Store
from carat.utils.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Sources:
    """Additional files and options of an import. Each format accepts some of them."""

    labels: Path | None = None
    """Label table, or another file with the labels."""
    words: Path | None = None
    """Words with their intervals; see `open_csd`."""
    text: Path | None = None
    """Word vectors; see `open_csd`."""
    visual: Path | None = None
    """Sequence of visual features; see `open_csd`."""
    audio: Path | None = None
    """Sequence of audio features; see `open_csd`."""
    folds: Path | None = None
    """Split of each video; see `open_csd`."""
    unaligned: bool = False
    """Keep all frames instead of their average per word; see `open_csd`."""
    by_index: bool = False
    """Match samples and labels by index; see `open_mosei_unaligned`."""
    level: Level = "dialogue"
    """What a sample is; see `open_m3ed` and `open_erc`."""
    as_released: bool = False
    """Swap audio and visual; see `open_m3ed`."""


@dataclass(frozen=True)
class Format:
    """A dataset format: its reader, and the sources that it requires and accepts."""

    open: Callable[[Path | None, Sources], Corpus]
    has_file: bool = True
    """Whether there is a main file; otherwise all files are sources."""
    required: frozenset[str] = frozenset()
    optional: frozenset[str] = frozenset()


def _open_csd(file: Path | None, sources: Sources) -> Corpus:
    from carat.data.corpora.csd import open_csd
    from carat.data.corpora.hdf5_sandbox import check_readable

    files = (sources.words, sources.labels, sources.text, sources.visual, sources.audio)
    check_readable(file for file in files if file is not None)
    modalities = {m: path for m in ("visual", "audio") if (path := getattr(sources, m)) is not None}
    return open_csd(
        _not_none(sources.words),
        _not_none(sources.labels),
        _not_none(sources.folds),
        modalities,
        aligned=not sources.unaligned,
        text=sources.text,
    )


def _not_none(path: Path | None) -> Path:
    assert path is not None, "import_data checks required sources"
    return path


FORMATS: Mapping[str, Format] = {
    "mosei-aligned": Format(lambda file, sources: open_mosei_aligned(_not_none(file))),
    "mosei-unaligned": Format(
        lambda file, sources: open_mosei_unaligned(
            _not_none(file), _not_none(sources.labels), sources.by_index
        ),
        required=frozenset({"labels"}),
        optional=frozenset({"by_index"}),
    ),
    "mmsa": Format(
        lambda file, sources: open_mmsa(_not_none(file), _not_none(sources.labels)),
        required=frozenset({"labels"}),
    ),
    "csd": Format(
        _open_csd,
        has_file=False,
        required=frozenset({"words", "labels", "folds"}),
        optional=frozenset({"text", "visual", "audio", "unaligned"}),
    ),
    "m3ed": Format(
        lambda file, sources: open_m3ed(_not_none(file), sources.level, sources.as_released),
        optional=frozenset({"level", "as_released"}),
    ),
    "erc": Format(
        lambda file, sources: open_erc(_not_none(file), sources.level), optional=frozenset({"level"})
    ),
}
"""Formats by name on the command line."""


def import_data(
    format: str,
    file: str | os.PathLike[str] | None,
    store: str | os.PathLike[str],
    sources: Sources | None = None,
    **options: Any,
) -> Store:
    """Import a dataset file into a store.

    Args:
        format: one of `FORMATS`.
        file: main file of the dataset; None for formats without one.
        store: folder of the store.
        sources: additional files and options.
        options: `keep_padding`, `dtype`, `overwrite` and `strict`, see `write_corpus`.

    Raises:
        ConfigError: unknown format, or a source is missing or not accepted by the format.
        DataError: invalid data, or the target exists. No store is written.
    """
    sources = sources or Sources()
    if format == "mosei-labels":
        raise ConfigError("mosei-labels has no features; pass the table to another format with --labels")
    if format not in FORMATS:
        hint = did_you_mean(format, FORMATS) or f"; available: {', '.join(FORMATS)}"
        raise ConfigError(f"unknown format '{format}'{hint}")
    spec = FORMATS[format]
    if spec.has_file and file is None:
        raise ConfigError(f"format {format} needs a file before the store")
    if not spec.has_file and file is not None:
        raise ConfigError(f"format {format} takes no file before the store; pass each file with its option")
    for field in fields(Sources):
        value = getattr(sources, field.name)
        option = "--" + field.name.replace("_", "-")
        if field.name in spec.required and value is None:
            raise ConfigError(f"format {format} needs {option}")
        if value != field.default and field.name not in spec.required | spec.optional:
            raise ConfigError(f"format {format} does not accept {option}")
    corpus = spec.open(Path(file) if file is not None else None, sources)
    return write_corpus(corpus, store, **options)
