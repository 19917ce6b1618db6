"""The rows of a recipe's tables as samples: IDs, splits, groups, labels and transcripts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from carat.config.base import expand
from carat.data.recipes.columns import Prefix
from carat.data.recipes.labels import LabelValues, read_labels
from carat.data.recipes.recipe import Recipe
from carat.data.recipes.sources.table import Table
from carat.data.recipes.splits import (
    DEFAULT_VALUES,
    SplitLists,
    SplitShares,
    draw_splits,
    read_split_column,
    read_split_lists,
)
from carat.utils.errors import DataError, printable, shorten

SPLIT_COLUMN = "split"
"""Column that is added to tables given by split."""


@dataclass(frozen=True)
class Samples:
    """The samples of a recipe, one per row of its table."""

    table: Table
    ids: list[str]
    splits: list[str]
    split_names: list[str]
    """Splits in the order of their codes."""
    groups: list[str]
    """Video or dialogue; empty for none."""
    transcripts: list[str]
    labels: LabelValues
    notes: list[str]
    """What was detected, and which rows were left out, for the user."""


def read_samples(recipe: Recipe, folder: Path) -> Samples:
    """Read the samples of a recipe.

    Args:
        recipe: recipe.
        folder: folder to which its paths are relative.

    Raises:
        DataError: a table cannot be read, or a column, an ID, a split or a label is invalid.
    """
    table = _open_table(recipe, folder)
    notes = list(table.notes)
    if recipe.rows is not None and recipe.rows < len(table):
        notes.append(f"{recipe.rows} rows of {len(table)}, evenly spaced")
        table = table.select(np.arange(recipe.rows) * len(table) // recipe.rows)
    labels, kept, label_notes = read_labels(table, recipe.labels, folder)
    notes += label_notes
    _read_ids(table, recipe)  # of all rows, also those left out
    table, labels = _select(table, labels, kept)
    ids = _read_ids(table, recipe)
    splits, split_notes = _read_splits(table, recipe, folder, ids, labels)
    notes += split_notes
    kept = np.array([row for row, split in enumerate(splits) if split is not None], dtype=np.int64)
    table, labels = _select(table, labels, kept)
    return Samples(
        table,
        [ids[row] for row in kept],
        [split for split in splits if split is not None],
        _split_names(recipe),
        _read_groups(table, recipe),
        table.text(recipe.transcript) if isinstance(recipe.transcript, str) else [""] * len(table),
        labels,
        notes,
    )


def _open_table(recipe: Recipe, folder: Path) -> Table:
    if isinstance(recipe.table, str):
        return Table(folder / expand(recipe.table), recipe)
    tables: dict[str, Table] = {
        split: Table(folder / expand(recipe.table[split]), recipe)
        for split in DEFAULT_VALUES
        if split in recipe.table
    }
    return Table.join(tables, SPLIT_COLUMN)


def _select(table: Table, labels: LabelValues, rows: NDArray[np.int64]) -> tuple[Table, LabelValues]:
    return (table, labels) if len(rows) == len(table) else (table.select(rows), labels.select(rows))


def _split_names(recipe: Recipe) -> list[str]:
    if isinstance(recipe.table, dict):
        return [split for split in DEFAULT_VALUES if split in recipe.table]
    if isinstance(recipe.split, SplitShares):
        return list(recipe.split.shares)
    return list(recipe.split.files) if isinstance(recipe.split, SplitLists) else list(recipe.splits)


def _read_splits(
    table: Table, recipe: Recipe, folder: Path, ids: Sequence[str], labels: LabelValues
) -> tuple[Sequence[str | None], list[str]]:
    """Return the split of each row, None for rows to leave out, and notes."""
    if isinstance(recipe.table, dict):
        splits = table.parts()
        for split in recipe.table:
            if split not in splits:
                raise DataError(f"{table.file}: split '{split}' has no samples")
        return splits, []
    groups = _read_groups(table, recipe)
    if isinstance(recipe.split, SplitLists):
        return read_split_lists(table, ids, groups, recipe.split, folder)
    if isinstance(recipe.split, SplitShares):
        units = groups if recipe.split.by == "group" else table.text(recipe.split.by)
        units = [unit or id for unit, id in zip(units, ids, strict=True)]
        splits = draw_splits(table, units, labels.present, recipe.split)
        _check_groups(table, groups, splits, recipe.split.by)
        return splits, [recipe.split.note]
    assert recipe.split is not None
    has_aliases = "splits" not in recipe.model_fields_set
    return read_split_column(table, recipe.split, recipe.splits, has_aliases)


def _check_groups(table: Table, groups: Sequence[str], splits: Sequence[str], by: str) -> None:
    split_of: dict[str, str] = {}
    for group, split in zip(groups, splits, strict=True):
        if group and split_of.setdefault(group, split) != split:
            raise DataError(
                f"{table.file}: a split by '{by}' divides group '{printable(group)}'; split by group instead"
            )


def _read_groups(table: Table, recipe: Recipe) -> list[str]:
    if recipe.group is None:
        return [""] * len(table)
    return recipe.group.read(table) if isinstance(recipe.group, Prefix) else table.joined_text(recipe.group)


def _read_ids(table: Table, recipe: Recipe) -> list[str]:
    """Return the IDs; refuse those that are empty, occur twice or differ only in what cannot be seen."""
    columns = [recipe.id] if isinstance(recipe.id, str) else recipe.id
    ids = ["/".join(parts) for parts in zip(*map(table.text, columns), strict=True)]
    first_row: dict[str, int] = {}
    for row, id in enumerate(ids):
        visible = id if id.isascii() and id.isalnum() else _visible(id)
        shown = printable(shorten(id, 60))
        if any(unicodedata.category(c) in ("Cc", "Cs") for c in id):
            raise DataError(f"{table.where(row)}: id '{shown}' contains a line break or a control character")
        if not visible.strip("/"):
            raise DataError(f"{table.where(row)}: the id is empty")
        other = first_row.setdefault(visible, row)
        if other != row:
            raise DataError(_describe_duplicate(table, recipe, ids, other, row))
    return ids


def _describe_duplicate(table: Table, recipe: Recipe, ids: Sequence[str], first: int, second: int) -> str:
    shown = printable(shorten(ids[second], 60))
    file, _, place = table.where(first).rpartition(": ")
    other_file, _, other_place = table.where(second).rpartition(": ")
    if file != other_file:
        return (
            f"duplicate id '{shown}' in {file}, {place}, and {other_file}, {other_place}; if IDs start anew "
            f"in each file, add {SPLIT_COLUMN} to id"
        )
    rows = f"data rows {place.split()[-1]} and {other_place.split()[-1]}"
    if ids[first] == ids[second]:
        return f"{file}: duplicate id '{shown}' in {rows}"
    return f"{file}: the ids in {rows}, '{shown}', differ only in spaces or invisible characters"


def _visible(id: str) -> str:
    """Return an ID without surrounding spaces and invisible characters."""
    composed = unicodedata.normalize("NFC", id)
    return "/".join(
        "".join(c for c in part if unicodedata.category(c) != "Cf").strip() for part in composed.split("/")
    )
