"""The doctor for data files that are no store yet."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from carat.data.checks.store import Finding, check_store
from carat.data.corpora.mosei_aligned import TARGET
from carat.data.corpora.registry import Sources, import_data
from carat.data.pickled.reading import entries, read_pickle
from carat.utils.errors import CaratError, ConfigError


def check_file(
    file: Path, format: str | None = None, sources: Sources | None = None, known: str | None = None
) -> list[Finding]:
    """Import a file into a temporary store and examine it.

    Args:
        file: a data file of the field.
        format: see `importing.FORMATS`; told by the file's content when None.
        sources: labels and choices beside it.
        known: see `check_store`.

    Returns:
        First whether it opens, then the findings of `check_store`, then what was cleaned.

    Raises:
        ConfigError: the format cannot be told, or a source that it needs is missing.
    """
    try:
        format = format or guess_format(file)
        with tempfile.TemporaryDirectory() as folder:
            store = import_data(format, file, Path(folder) / "store", sources)
            described = store.manifest.modalities.items()
            cleaned = [f"{m}: {line}" for m, modality in described for line in modality.cleaning]
            notes = "; ".join([*cleaned, *store.manifest.notes]) or "nothing was changed"
            opened = Finding("opens", "ok", f"as {format}, {len(store)} samples")
            return [opened, *check_store(store, known), Finding("cleaning", "ok", notes)]
    except ConfigError:
        raise
    except CaratError as error:
        return [Finding("opens", "fail", " ".join(str(error).split()))]


def guess_format(file: Path) -> str:
    """The format that a file's content shows.

    Raises:
        ConfigError: none.
        DataError: the file cannot be read.
    """
    if file.suffix.lower() in (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".yaml"):
        raise ConfigError(f"{file}: no data file of the field; carat data build makes a store of a table")
    if file.suffix.lower() in (".csd", ".h5", ".hdf5"):
        raise ConfigError(f"{file}: a csd data set has several files: import it, then check the store")
    found = read_pickle(file)
    if isinstance(found, (tuple, list)):
        return "m3ed" if len(found) >= 10 and isinstance(found[5], Mapping) else "erc"
    if isinstance(found, Mapping):
        for part in entries(found, str(file)).values():
            if isinstance(part, Mapping):
                keys = entries(part, str(file)).keys()
                if TARGET in keys:
                    return "mosei-aligned"
                if "raw_text" in keys or "text_bert" in keys:
                    return "mmsa"
                if "vision" in keys:
                    return "mosei-unaligned"
    raise ConfigError(f"{file}: cannot tell what it is; say so with --format")
