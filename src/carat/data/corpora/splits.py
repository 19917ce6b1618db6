"""What several files of the field have in common: a dict of splits, each a dict of entries by sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from carat.data.corpora.base import SPLITS
from carat.data.pickled.reading import entries, length, read_pickle
from carat.utils.errors import DataError

OTHER_NAMES = {"dev": "valid", "val": "valid"}


def open_splits(file: Path, keys: Sequence[str], optional: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Entries of train, valid and test, each with as many samples as the others of its split.

    Args:
        file: a pickle, or a file of `torch.save`.
        keys: entries that every split must have.
        optional: entries that are checked where a split has them.

    Raises:
        DataError: names split and entry, what was found and what was expected.
    """
    whole = entries(read_pickle(file), str(file))
    whole = {OTHER_NAMES.get(split, split): part for split, part in whole.items()}
    splits: dict[str, dict[str, Any]] = {}
    for split in SPLITS:
        if split not in whole:
            raise DataError(f"{file}: no split '{split}', it has: {', '.join(whole)[:200]}")
        part = splits[split] = entries(whole[split], f"{file}, {split}")
        for key in keys:
            if key not in part:
                raise DataError(f"{file}, {split}: no '{key}', it has: {', '.join(part)[:200]}")
        named = [*keys, *(key for key in optional if key in part)]
        counts = {key: length(part[key], f"{file}, {split}, {key}") for key in named}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{key} {count}" for key, count in counts.items())
            raise DataError(f"{file}, {split}: entries of different length: {listed}")
    return splits
