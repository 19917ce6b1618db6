"""Assignments of videos to splits: tables, JSON, or modules of the CMU-MultimodalSDK, which are not run."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from carat.data.corpora.sequence_file import video_of
from carat.data.recipes.sources.table import Table
from carat.utils.errors import DataError, printable
from carat.utils.reading import check_content, read_json, read_text

FOLDS = {"train": "train", "valid": "valid", "val": "valid", "dev": "valid", "test": "test"}
"""Splits by the names of folds."""
PREFIX, SUFFIX = "standard_", "_fold"
"""Around the names of folds in the SDK, such as `standard_train_fold`."""
MAX_MODULE = 4 << 20
"""Maximum size of a module in bytes; that of CMU-MOSEI has 46 kB."""


def read_folds(file: Path) -> dict[str, str]:
    """Read the split of each video.

    Args:
        file: a JSON file with lists of IDs by fold; a Python module of the SDK, in which lists are assigned
            to `standard_train_fold` and so on; or a table with the columns `video_id` (or `video`) and
            `fold` (or `split`). Folds are train, valid (val, dev) and test.

    Raises:
        DataError: the file cannot be read, a fold is unknown, or a video is in two folds.
    """
    if file.suffix == ".json":
        pairs = _read_json(file)
    elif file.suffix == ".py":
        check_content(file)
        pairs = _pairs(file, _read_module(file))
    else:
        check_content(file)
        table = Table(file)
        id_column = "video" if "video" in table.columns and "video_id" not in table.columns else "video_id"
        fold_column = "split" if "split" in table.columns and "fold" not in table.columns else "fold"
        pairs = list(zip(table.text(id_column), table.text(fold_column), strict=True))
    splits: dict[str, str] = {}
    for id, fold in pairs:
        if not fold:
            continue
        name = _fold_name(fold)
        if name not in FOLDS:
            raise DataError(f"{file}: unknown fold '{printable(fold)}', expected one of {', '.join(FOLDS)}")
        video, split = video_of(id), FOLDS[name]
        if splits.setdefault(video, split) != split:
            raise DataError(
                f"{file}: video '{printable(video)}' is in two folds, {splits[video]} and {split}"
            )
    return splits


def _fold_name(name: str) -> str:
    return name.lower().removeprefix(PREFIX).removesuffix(SUFFIX)


def _read_json(file: Path) -> list[tuple[str, str]]:
    """Read pairs of ID and fold."""
    try:
        return _pairs(file, read_json(file))
    except DataError as error:
        if file.is_file():
            check_content(file)
        raise DataError(f"{file}: cannot be read as JSON ({str(error).removeprefix(f'{file}: ')})") from error


def _pairs(file: Path, folds: Any) -> list[tuple[str, str]]:
    """Return pairs of ID and fold."""
    lists = folds.values() if isinstance(folds, dict) and folds else [None]
    if not all(isinstance(ids, list) and all(isinstance(id, str) for id in ids) for ids in lists):
        raise DataError(f'{file}: expected lists of IDs by fold, such as {{"train": ["video"]}}')
    return [(id, fold) for fold, ids in folds.items() for id in ids]


def _read_module(file: Path) -> dict[str, Any]:
    """Read the lists that a Python module assigns to names of folds, without running it.

    Raises:
        DataError: not Python, a list is not written out, or there is none.
    """
    source = read_text(file, limit=MAX_MODULE)
    folds: dict[str, Any] = {}
    try:
        for statement in ast.parse(source).body:
            if not isinstance(statement, ast.Assign):
                continue
            for target in statement.targets:
                if isinstance(target, ast.Name) and _fold_name(target.id) in FOLDS:
                    folds[target.id] = list(ast.literal_eval(statement.value))
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        raise DataError(
            f"{file}: cannot be read as a module with lists of IDs that are written out; it is not run"
        ) from error
    if not folds:
        raise DataError(f"{file}: assigns no standard_train_fold, standard_valid_fold or standard_test_fold")
    return folds
