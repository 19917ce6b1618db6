"""Checks for raw data files."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from carat.data.checks.store import Finding, check_store
from carat.data.corpora.dialogue_layouts import M3ED
from carat.data.corpora.dialogue_parts import describe_parts
from carat.data.corpora.mosei_aligned import TARGET
from carat.data.corpora.mult import has_emotions
from carat.data.corpora.registry import Sources, import_data
from carat.data.pickled.reading import entries, read_pickle
from carat.utils.errors import CaratError, ConfigError


def check_file(
    file: Path, format: str | None = None, sources: Sources | None = None, known: str | None = None
) -> list[Finding]:
    """Import a file into a temporary store and run all checks on it.

    Args:
        file: a dataset file.
        format: a key of `FORMATS`; recognized by the content of the file by default.
        sources: additional files and options of the import.
        known: see `check_store`.

    Returns:
        Findings: whether the file can be opened, those of `check_store`, and what was cleaned.

    Raises:
        ConfigError: the format is not recognized, or a source is missing or not accepted.
    """
    try:
        format = format or recognize_format(file)
        with tempfile.TemporaryDirectory() as folder:
            store = import_data(format, file, Path(folder) / "store", sources)
            modalities = store.manifest.modalities.items()
            cleaning = [f"{m}: {line}" for m, info in modalities for line in info.cleaning]
            message = "; ".join([*cleaning, *store.manifest.notes]) or "nothing was changed"
            opens = Finding("opens", "ok", f"as {format}, {len(store)} samples")
            return [opens, *check_store(store, known), Finding("cleaning", "ok", message)]
    except ConfigError:
        raise
    except CaratError as error:
        return [Finding("opens", "fail", " ".join(str(error).split()))]


def recognize_format(file: Path) -> str:
    """Recognize the format of a file by its content.

    Raises:
        ConfigError: the format is not recognized.
        DataError: the file cannot be read.
    """
    if file.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".yaml"):
        raise ConfigError(f"{file}: not a dataset file; use `carat data build` to make a store from a table")
    if file.suffix.lower() in (".csd", ".h5", ".hdf5"):
        raise ConfigError(f"{file}: one of several files of a csd dataset; import it, then check the store")
    content = read_pickle(file)
    if isinstance(content, (tuple, list)):
        return "m3ed" if M3ED.matches(describe_parts(content)) else "erc"
    if isinstance(content, Mapping):
        for part in entries(content, str(file)).values():
            if isinstance(part, Mapping):
                keys = entries(part, str(file)).keys()
                if TARGET in keys:
                    return "mosei-aligned"
                if "raw_text" in keys or "text_bert" in keys:
                    return "mmsa"
                if "vision" in keys:
                    return "mult" if has_emotions(part) else "mosei-unaligned"
    raise ConfigError(f"{file}: format not recognized; set it with --format")
