"""Splits of a recipe: a column, separate tables, lists of IDs, or shares drawn at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Discriminator, Field, Tag, model_validator

from carat.config.base import Section, expand
from carat.data.recipes.sources.table import Table
from carat.data.tables.format import Column
from carat.utils.errors import DataError, printable, shorten
from carat.utils.reading import read_text

SplitName = Literal["train", "valid", "test"]
DEFAULT_VALUES: dict[SplitName, Column] = {"train": "train", "valid": "valid", "test": "test"}
ALIASES = {"training": "train", "dev": "valid", "val": "valid", "validation": "valid", "testing": "test"}
"""Other values of a split column, in lower case, if the recipe names none."""
SIZE_BINS = 4
"""Number of sizes of groups that are spread evenly over the splits."""
Share = Annotated[float, Field(gt=0, lt=1)]


class SplitShares(Section):
    """Splits drawn at random, without dividing groups."""

    train: Share
    valid: Share
    test: Share | None = None
    by: Column = "group"
    """Column whose values are not divided; `group` is the group of the recipe, by default the sample."""
    stratify: bool = True
    """Spread each label evenly, by iterative stratification (Sechidis et al., 2011)."""
    seed: int = Field(default=0, ge=0, lt=2**32, strict=True)

    @model_validator(mode="after")
    def _check_sum(self) -> SplitShares:
        total = sum(self.shares.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares of the splits sum to {total:g}, expected 1")
        return self

    @property
    def shares(self) -> dict[SplitName, float]:
        """Share of each split."""
        shares: dict[SplitName, float] = {"train": self.train, "valid": self.valid}
        return shares if self.test is None else {**shares, "test": self.test}

    @property
    def note(self) -> str:
        """Describe the rule."""
        shares = ", ".join(f"{split} {share:g}" for split, share in self.shares.items())
        how = "stratified by labels (iterative stratification)" if self.stratify else "at random"
        return f"split by {self.by}: {shares}, {how}, seed {self.seed}"


class SplitLists(Section):
    """Splits by files with one ID on each line."""

    train: str
    valid: str
    test: str | None = None
    unlisted: Literal["refuse", "drop"] = "refuse"
    """What to do with rows in none of the lists."""

    @property
    def files(self) -> dict[SplitName, str]:
        """File of each split."""
        files: dict[SplitName, str] = {"train": self.train, "valid": self.valid}
        return files if self.test is None else {**files, "test": self.test}


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        is_random = "by" in value or any(isinstance(value.get(x), int | float) for x in DEFAULT_VALUES)
        return "shares" if is_random else "lists"
    return (
        "shares" if isinstance(value, SplitShares) else "lists" if isinstance(value, SplitLists) else "column"
    )


Split = Annotated[
    Annotated[Column, Tag("column")]
    | Annotated[SplitShares, Tag("shares")]
    | Annotated[SplitLists, Tag("lists")],
    Discriminator(_kind),
]
"""Table column with the split, or where else it comes from."""


def read_split_column(
    table: Table, column: str, values: Mapping[SplitName, str], has_aliases: bool
) -> tuple[list[str], list[str]]:
    """Read the splits from a column.

    Args:
        table: table of samples.
        column: name.
        values: value of the column for each split.
        has_aliases: accept common names of the splits too, such as `dev`.

    Returns:
        Split of each row, and notes.

    Raises:
        DataError: a row has another value, or a split has no rows.
    """
    split_of: dict[str, str] = {value: split for split, value in values.items()}
    cells = table.text(column)
    notes = []
    for cell in dict.fromkeys(cells) if has_aliases else ():
        word = cell.strip().casefold()
        split = ALIASES.get(word, word)
        if cell not in split_of and split in values:
            split_of[cell] = split
            notes.append(f"'{cell}' in column '{column}' is taken as {split}")
    for row, cell in enumerate(cells):
        if cell not in split_of:
            file, _, place = table.where(row).rpartition(": ")
            raise DataError(
                f"{file}: {place} has split '{printable(shorten(cell, 60))}', but the recipe's splits are "
                f"{', '.join(split_of)}"
            )
    splits = [split_of[cell] for cell in cells]
    for split, value in values.items():
        if split not in splits:
            raise DataError(
                f"{table.file}: split '{split}' has no samples (no '{value}' in column '{column}')"
            )
    return splits, notes


def read_split_lists(
    table: Table, ids: Sequence[str], groups: Sequence[str], lists: SplitLists, folder: Path
) -> tuple[list[str | None], list[str]]:
    """Look up the split of each sample in lists of IDs, or of groups if none of the IDs is a sample's.

    Args:
        table: table of samples.
        ids: ID of each row.
        groups: group of each row.
        lists: files.
        folder: folder of the recipe.

    Returns:
        Split of each row, None for rows to leave out, and notes.

    Raises:
        DataError: an ID is in two lists, rows are in none, or a split has no rows.
    """
    split_of: dict[str, str] = {}
    for split, name in lists.files.items():
        file = folder / expand(name)
        for line in read_text(file).splitlines():
            id = line.strip()
            if id and split_of.setdefault(id, split) != split:
                raise DataError(f"{file}: '{printable(id)}' is in the list of {split_of[id]} too")
    are_groups = not any(id in split_of for id in ids) and any(group in split_of for group in groups)
    keys = groups if are_groups else ids
    unlisted = [row for row, key in enumerate(keys) if key not in split_of]
    notes = [] if not are_groups else ["the lists of the splits hold groups"]
    if unlisted:
        what = f"{len(unlisted)} of {len(ids)} rows are in none of the lists, e.g. '{keys[unlisted[0]]}'"
        if lists.unlisted == "refuse" or len(unlisted) == len(ids):
            example = next(iter(split_of), "")
            raise DataError(
                f"{table.file}: {printable(what)}, which hold IDs such as '{printable(example)}'; leave "
                "those rows out by split: {unlisted: drop}"
            )
        notes.append(f"{what}: left out")
    if missing := len(set(split_of) - set(keys)):
        notes.append(f"{missing} of {len(split_of)} IDs in the lists of the splits are not in the table")
    splits = [split_of.get(key) for key in keys]
    _check_all_used(table, splits, list(lists.files))
    return splits, notes


def draw_splits(
    table: Table, units: Sequence[str], present: NDArray[np.uint8], shares: SplitShares
) -> list[str]:
    """Draw splits at random.

    Args:
        table: table of samples.
        units: what is not divided, for each row.
        present: labels (N, L).
        shares: shares and rule.

    Returns:
        Split of each row. Equal for equal units, labels and seed, in whatever order.

    Raises:
        DataError: there are too few units for a split to get any.
    """
    names, unit_of, sizes = np.unique(np.array(units, dtype=object), return_inverse=True, return_counts=True)
    random = np.random.RandomState(shares.seed)
    proportions = np.array(list(shares.shares.values()))
    if shares.stratify:
        has_label = np.zeros((len(names), present.shape[1]), dtype=bool)
        np.logical_or.at(has_label, unit_of, present.astype(bool))
        codes = _stratify(has_label, sizes, proportions / proportions.sum(), random)
    else:
        order = random.permutation(len(names))
        middles = np.cumsum(sizes[order]) - sizes[order] / 2
        codes = np.empty(len(names), dtype=np.int64)
        codes[order] = np.searchsorted(np.cumsum(proportions)[:-1] * sizes.sum(), middles, side="right")
    splits = [list(shares.shares)[code] for code in codes[unit_of]]
    _check_all_used(table, splits, list(shares.shares))
    return list(splits)


def _stratify(
    has_label: NDArray[np.bool_], sizes: NDArray[np.int64], shares: NDArray[np.float64], random: Any
) -> NDArray[np.int64]:
    """Draw the split of each unit such that labels, and sizes of units, are spread evenly."""
    from iterstrat.ml_stratifiers import IterativeStratification

    edges = np.unique(np.quantile(sizes, np.linspace(0, 1, SIZE_BINS + 1)[1:-1]))
    size_bins = np.eye(len(edges) + 1, dtype=bool)[np.searchsorted(edges, sizes)]
    features = np.hstack([has_label, size_bins]) if len(edges) > 1 else has_label
    codes: NDArray[np.int64] = IterativeStratification(features, shares, random)
    return codes


def _check_all_used(table: Table, splits: Sequence[str | None], names: Sequence[str]) -> None:
    for name in names:
        if name not in splits:
            raise DataError(f"{table.file}: split '{name}' has no samples")
