"""Labels of a recipe: numeric columns with a rule, or one column of names."""

from __future__ import annotations

import operator
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from carat.config.base import Section, expand
from carat.data.recipes.columns import Columns, select_columns
from carat.data.recipes.label_names import LIST, Positions, check_no_indicators, is_number, split_names
from carat.data.recipes.sources.table import Table
from carat.data.tables.format import Column
from carat.utils.errors import DataError, printable, shorten
from carat.utils.reading import read_text

RULE = re.compile(r"(>=|<=|==|!=|>|<)\s*(-?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
COMPARE = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
SEPARATORS = (";", "|", ",")
"""Separators of labels in a cell, as far as they are detected."""
MAX_LABELS = 500
"""Number of different names from which a column is not one of labels."""


class Labels(Section):
    """Where the labels are: in `columns`, one per label, or as names in one `column`."""

    columns: Columns | None = None
    """Numeric table columns, or a pattern such as `share_*`, in the order of the L axis. The label is named
    after the column, or after what the star stands for."""
    rule: str = "> 0"
    """Comparison with a number: >, >=, <, <=, == or !=."""
    intensities: bool = False
    """Store the numbers as label intensities too."""
    target: Literal["binary", "graded"] = "binary"
    """What training compares scores with: labels that are present or absent, or the numbers of `columns`
    between 0 and 1, such as shares of votes. Thresholds and classification metrics use `rule` either way."""
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """With `target: graded`, the number that means a label to the full, such as 3 for intensities 0 to 3."""
    column: Column | None = None
    """Table column with the name of the label, or several of them."""
    separator: str | None = Field(default=None, min_length=1)
    """Separator of several names in a cell, or `none`; by default the one of `;`, `|` and `,` that occurs.
    Lists in brackets are read without it."""
    names: Annotated[list[Column], Field(min_length=1)] | str | None = None
    """Names of the labels in the order of the L axis, or a file with one on each line. With `column`, cells
    may hold their positions from 0 instead. Defaults to the names that occur, sorted."""
    unknown: Literal["refuse", "drop", "absent", "keep"] = "refuse"
    """Rows whose label is empty, NaN or not among `names`: refuse the table, leave them out (counted in the
    manifest), take the label as absent, or keep it as unknown. With `keep`, a table for one split may lack
    label columns that another one has."""

    @field_validator("rule")
    @classmethod
    def _check_rule(cls, rule: str) -> str:
        if not RULE.fullmatch(rule.strip()):
            raise ValueError(f"'{rule}' is not a comparison such as '> 0'")
        return rule.strip()

    @model_validator(mode="after")
    def _check_source(self) -> Labels:
        if (self.columns is None) == (self.column is None):
            raise ValueError("needs either `columns`, one per label, or `column`, which holds names")
        given = self.model_fields_set
        for key in ("rule", "intensities", "target", "scale") if self.column is not None else ("separator",):
            if key in given:
                raise ValueError(f"{key} has no effect with {'column' if self.column else 'columns'}")
        if "scale" in given and self.target != "graded":
            raise ValueError("scale has no effect without `target: graded`")
        return self

    def present(self, intensities: NDArray[np.float64]) -> NDArray[np.uint8]:
        """Apply the rule to intensities (N, L); the result is 0 or 1."""
        match = RULE.fullmatch(self.rule)
        assert match is not None
        return np.asarray(COMPARE[match[1]](intensities, float(match[2])), dtype=np.uint8)


@dataclass(frozen=True)
class LabelValues:
    """Labels of the rows of a table."""

    names: list[str]
    """Names of the L labels."""
    present: NDArray[np.uint8]
    """(N, L), 0 or 1; 0 where unknown."""
    known: NDArray[np.bool_]
    """(N, L)."""
    intensities: NDArray[np.float64] | None
    """(N, L)."""
    grades: NDArray[np.float64] | None
    """(N, L), in [0, 1], 0 where unknown."""
    note: str
    """How the labels were read."""
    columns: list[str]
    """Columns that hold them."""

    def select(self, rows: NDArray[np.int64]) -> LabelValues:
        """Return the labels of some of the rows."""
        intensities, grades = (None if x is None else x[rows] for x in (self.intensities, self.grades))
        return replace(
            self, present=self.present[rows], known=self.known[rows], intensities=intensities, grades=grades
        )


def read_labels(
    table: Table, labels: Labels, folder: Path
) -> tuple[LabelValues, NDArray[np.int64], list[str]]:
    """Read the labels of a table.

    Args:
        table: table of samples.
        labels: where its labels are.
        folder: folder of the recipe.

    Returns:
        Labels of all rows, the rows to keep, and notes about the others.

    Raises:
        DataError: a column or a name is missing, a cell is invalid, or labels are unknown and refused.
    """
    names = _read_names(labels, folder)
    read = _read_columns if labels.columns is not None else _read_column
    values, example = read(table, labels, names)
    unknown = np.flatnonzero(~values.known.all(1))
    everything: NDArray[np.int64] = np.arange(len(table))
    if not len(unknown):
        return values, everything, []
    what = f"{len(unknown)} of {len(table)} rows have unknown labels, e.g. {table.place(int(unknown[0]))}, "
    if labels.unknown == "refuse":
        raise DataError(
            f"{table.file}: {what}{example}; leave those rows out by labels: {{unknown: drop}}, take the "
            "labels as absent by {unknown: absent}, or train and evaluate on the known ones alone by "
            "{unknown: keep}"
        )
    if labels.unknown == "absent":
        values = replace(values, known=np.ones_like(values.known))
        return values, everything, [f"{what}{example}: taken as absent"]
    if labels.unknown == "keep" and values.known.any():
        return values, everything, [f"{what}{example}: kept as unknown"]
    kept = np.setdiff1d(everything, unknown)
    if not len(kept) or labels.unknown == "keep":
        raise DataError(f"{table.file}: no row has a known label")
    return values, kept, [f"{what}{example}: left out"]


def _read_columns(table: Table, labels: Labels, names: list[str] | None) -> tuple[LabelValues, str]:
    """Read numeric columns; also return what the first row with unknown labels holds."""
    assert labels.columns is not None
    selected = select_columns(table.filled(), labels.columns)
    table = _fill(table, labels, list(selected))
    if names is not None and len(names) != len(selected):
        raise DataError(f"{table.file}: {len(selected)} label columns, but {len(names)} names")
    intensities = np.array([table.numbers_or_unknown(column) for column in selected]).T
    with np.errstate(over="ignore"):
        if np.isinf(intensities.astype(np.float32)).any():
            raise DataError(f"{table.file}: label columns have numbers beyond 3e38")
    is_unknown = np.isnan(intensities)
    unknown = np.flatnonzero(is_unknown.any(1))
    example = ""
    if len(unknown):
        column = list(selected)[int(is_unknown[unknown[0]].argmax())]
        example = f"column '{column}' is '{printable(table.text(column)[unknown[0]])}'"
    present = labels.present(intensities) * ~is_unknown
    values = LabelValues(
        names or list(selected.values()),
        present.astype(np.uint8),
        ~is_unknown,
        np.nan_to_num(intensities) if labels.intensities else None,
        _grade(table, labels, selected, np.nan_to_num(intensities)) if labels.target == "graded" else None,
        _describe(labels),
        list(selected),
    )
    return values, example


def _grade(
    table: Table, labels: Labels, columns: Iterable[str], numbers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Divide numbers (N, L) by the scale.

    Raises:
        DataError: one is then outside [0, 1].
    """
    outside = (numbers < 0) | (numbers > labels.scale)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise DataError(
            f"{table.file}: {table.place(int(row))}, column '{printable(list(columns)[column])}': "
            f"{numbers[row, column]:g}, but graded labels are from 0 to `scale`, here {labels.scale:g}; the "
            f"largest number is {numbers.max():g}: set labels: {{scale: …}} to the number of a full label"
        )
    return numbers / labels.scale


def _describe(labels: Labels) -> str:
    graded = f"; graded labels are the columns divided by {labels.scale:g}"
    return f"a label is present where its column is {labels.rule}" + graded * (labels.target == "graded")


def _read_column(table: Table, labels: Labels, names: list[str] | None) -> tuple[LabelValues, str]:
    """Read a column of names; also return what the first row with unknown labels holds."""
    assert labels.column is not None
    table = _fill(table, labels, [labels.column])
    cells = table.text(labels.column)
    separator = labels.separator or _detect_separator(table, labels.column, cells, names)
    separator = None if separator == "none" else separator
    try:
        parsed = {cell: split_names(cell, separator) for cell in dict.fromkeys(cells)}
        counts = Counter(name for cell in cells for name in parsed[cell] or ())
        names = names or _collect_names(table, labels.column, counts)
        positions = Positions(names)
        found = {cell: positions.find_all(parsed[cell]) for cell in parsed}
        check_no_indicators(parsed, names)
    except ValueError as error:
        raise DataError(f"{table.file}: column '{labels.column}': {error}") from error
    present = np.zeros((len(cells), len(names)), dtype=np.uint8)
    for row, cell in enumerate(cells):
        present[row, found[cell] or []] = 1
    unknown = np.array([row for row, cell in enumerate(cells) if found[cell] is None], dtype=np.int64)
    example = (
        f"column '{labels.column}' is '{printable(shorten(cells[unknown[0]], 60))}'" if len(unknown) else ""
    )
    if len(unknown) and parsed[cells[unknown[0]]] is not None:
        example += f", which is not among the names {printable(shorten(', '.join(names), 80))}"
    how = f", separated by '{separator}'" if separator else ""
    note = f"labels are the names in column '{labels.column}'{how}"
    known = np.ones(present.shape, dtype=bool)
    known[unknown] = False
    return LabelValues(names, present, known, None, None, note, [labels.column]), example


def _fill(table: Table, labels: Labels, columns: Sequence[str]) -> Table:
    """Return the table, with unknown labels where one of the joined tables lacks a column.

    Raises:
        DataError: a column is lacking, and unknown labels are not kept.
    """
    if labels.unknown == "keep":
        return table.filled()
    for column in columns:
        if column in table.lacking:
            raise DataError(
                f"{table.lacking[column]}: no column '{printable(column)}', which the other tables have; "
                "keep its labels as unknown by labels: {unknown: keep}"
            )
    return table


def _collect_names(table: Table, column: str, counts: Counter[str]) -> list[str]:
    """Return the names that occur, sorted."""
    names = sorted(counts)
    where = f"{table.file}: column '{column}'"
    if len(names) > MAX_LABELS:
        raise DataError(f"{where} has {len(names)} different values; is it a column of labels?")
    if number := next((name for name in names if is_number(name)), None):
        raise DataError(
            f"{where} has numbers, e.g. '{number}'; say what they mean by labels: {{names: …}}, a list or a "
            "file with one name on each line, counted from 0"
        )
    for name in names:
        parts = re.split(r"\s*[^\w\s]\s*|\s+", name)
        if len(parts) > 1 and all(part in counts for part in parts):
            raise DataError(
                f"{where} has '{printable(name)}' ({counts[name]} times) beside '{parts[0]}' and "
                f"'{parts[1]}'; if these are several labels, name what separates them by labels: "
                "{separator: …}, else give the names by labels: {names: […]}"
            )
    same: dict[str, str] = {}
    for name in names:
        if (other := same.setdefault(name.casefold(), name)) != name:
            raise DataError(
                f"{where} has '{printable(other)}' ({counts[other]} times) and '{printable(name)}' "
                f"({counts[name]} times); give the names by labels: {{names: […]}}"
            )
    return names


def _read_names(labels: Labels, folder: Path) -> list[str] | None:
    """Return the names given in the recipe or in a file."""
    names = labels.names
    origin = "labels.names"
    if isinstance(names, str):
        file = folder / expand(names)
        names, origin = [line.strip() for line in read_text(file).splitlines() if line.strip()], str(file)
    if names is not None and not 0 < len(names) <= MAX_LABELS:
        raise DataError(f"{origin}: {len(names)} names, expected 1 to {MAX_LABELS}")
    for name in names or ():
        if (names or []).count(name) > 1:
            raise DataError(f"{origin}: duplicate name '{printable(name)}'")
    return names


def _detect_separator(table: Table, column: str, cells: Sequence[str], names: list[str] | None) -> str | None:
    """Return the separator that occurs in cells, other than in names and lists; None if there is none."""
    known = set(names or ())
    plain = {cell for cell in cells if cell not in known and not LIST.fullmatch(cell.strip())}
    found = [x for x in SEPARATORS if any(x in cell for cell in plain)]
    if len(found) > 1:
        example = printable(shorten(min(cell for cell in plain if found[0] in cell), 60))
        both = " and ".join(f"'{x}'" for x in found)
        raise DataError(
            f"{table.file}: column '{column}' has cells with {both}, e.g. '{example}'; name the one between "
            "labels by labels: {separator: …}"
        )
    return found[0] if found else None
