"""Formats by name, and what each needs to know."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from carat.data.corpora.base import Corpus, import_corpus
from carat.data.corpora.dialogues import Level, open_erc, open_m3ed
from carat.data.corpora.mmsa import open_mmsa
from carat.data.corpora.mosei_aligned import open_mosei_aligned
from carat.data.corpora.mosei_unaligned import open_mosei_unaligned
from carat.data.store import Store
from carat.utils.errors import ConfigError, did_you_mean


@dataclass(frozen=True)
class Sources:
    """Files and choices beside the file itself; each format takes some of them."""

    labels: Path | None = None
    """Label table, or what else holds the labels."""
    words: Path | None = None
    text: Path | None = None
    visual: Path | None = None
    audio: Path | None = None
    folds: Path | None = None
    unaligned: bool = False
    by_index: bool = False
    level: Level = "dialogue"
    as_released: bool = False


@dataclass(frozen=True)
class Format:
    """One way in: what it opens, and which of the sources it needs and takes."""

    open: Callable[[Path | None, Sources], Corpus]
    has_file: bool = True
    needs: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


def _csd(file: Path | None, given: Sources) -> Corpus:
    from carat.data.corpora.csd import open_csd
    from carat.data.corpora.hdf5_trial import try_reading

    files = (given.words, given.labels, given.text, given.visual, given.audio)
    try_reading(file for file in files if file is not None)
    others = {m: path for m in ("visual", "audio") if (path := getattr(given, m)) is not None}
    return open_csd(
        _path(given.words),
        _path(given.labels),
        _path(given.folds),
        others,
        aligned=not given.unaligned,
        text=given.text,
    )


def _path(given: Path | None) -> Path:
    assert given is not None, "checked before"
    return given


FORMATS: Mapping[str, Format] = {
    "mosei-aligned": Format(lambda file, given: open_mosei_aligned(_path(file))),
    "mosei-unaligned": Format(
        lambda file, given: open_mosei_unaligned(_path(file), _path(given.labels), given.by_index),
        needs=frozenset({"labels"}),
        takes=frozenset({"by_index"}),
    ),
    "mmsa": Format(
        lambda file, given: open_mmsa(_path(file), _path(given.labels)), needs=frozenset({"labels"})
    ),
    "csd": Format(
        _csd,
        has_file=False,
        needs=frozenset({"words", "labels", "folds"}),
        takes=frozenset({"text", "visual", "audio", "unaligned"}),
    ),
    "m3ed": Format(
        lambda file, given: open_m3ed(_path(file), given.level, given.as_released),
        takes=frozenset({"level", "as_released"}),
    ),
    "erc": Format(lambda file, given: open_erc(_path(file), given.level), takes=frozenset({"level"})),
}
"""Every format by its name on the command line."""


def import_data(
    format: str,
    file: str | os.PathLike[str] | None,
    store: str | os.PathLike[str],
    sources: Sources | None = None,
    **options: Any,
) -> Store:
    """Turn a data file of the field into a checked store.

    Args:
        format: one of `FORMATS`.
        file: the data file; None for formats that name all their files.
        store: folder of the store to make.
        sources: files and choices beside it.
        options: `keep_padding`, `dtype`, `overwrite`, see `import_corpus`.

    Raises:
        ConfigError: unknown format, a source that it needs is missing or that it does not take is given.
        DataError: the data is wrong; nothing is left behind.
    """
    given = sources or Sources()
    if format == "mosei-labels":
        raise ConfigError("mosei-labels holds no features: give the table to another format as its labels")
    if format not in FORMATS:
        raise ConfigError(f"unknown format '{format}'{did_you_mean(format, FORMATS) or _known()}")
    chosen = FORMATS[format]
    if chosen.has_file and file is None:
        raise ConfigError(f"format {format} needs its file and the store")
    if not chosen.has_file and file is not None:
        raise ConfigError(f"format {format} takes no file before the store; name each by its option")
    for field in fields(Sources):
        value = getattr(given, field.name)
        option = "--" + field.name.replace("_", "-")
        if field.name in chosen.needs and value is None:
            raise ConfigError(f"format {format} needs {option}")
        if value != field.default and field.name not in chosen.needs | chosen.takes:
            raise ConfigError(f"format {format} does not take {option}")
    foreign = chosen.open(Path(file) if file is not None else None, given)
    return import_corpus(foreign, store, **options)


def _known() -> str:
    return f"; known: {', '.join(FORMATS)}"
