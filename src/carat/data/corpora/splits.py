"""Reading files that hold a dict of splits, each of them a dict of entries by sample."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from carat.data.corpora.base import SPLITS
from carat.data.pickled.reading import entries, flatten_runs, length, read_pickle
from carat.utils.errors import DataError, printable

SPLIT_ALIASES = {"dev": "valid", "val": "valid"}


def open_splits(file: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Read the splits train, valid and test, and check that the entries of a split have equal lengths.

    Args:
        file: a pickle, or a file written by `torch.save`.
        keys: entries that every split must have.
        optional: entries that are checked if a split has them.

    Returns:
        Entries by split and key.

    Raises:
        DataError: the file cannot be read, or splits or entries are missing or invalid.
    """
    content = entries(read_pickle(file), str(file))
    content = {SPLIT_ALIASES.get(split, split): part for split, part in content.items()}
    splits: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        if split not in content:
            raise DataError(f"{file}: no split '{split}'; available: {_list(content)}")
        part = splits[split] = entries(content[split], f"{file}, {split}")
        for key in keys:
            if key not in part:
                raise DataError(f"{file}, {split}: no entry '{key}'; available: {_list(part)}")
        checked = [*keys, *(key for key in optional if key in part)]
        part.update({key: flatten_runs(part[key], f"{file}, {split}, {key}") for key in checked})
        counts = {key: length(part[key], f"{file}, {split}, {key}") for key in checked}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise DataError(f"{file}, {split}: entries have different lengths: {listed}")
    return splits


def _list(names: Iterable[str]) -> str:
    return printable(", ".join(names)[:200])
