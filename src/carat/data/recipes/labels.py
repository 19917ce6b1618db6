"""Labels of a recipe: numeric columns with a rule, or one column of names."""

from __future__ import annotations

import json
import operator
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from carat.config.base import Section, expand
from carat.data.recipes.columns import Columns, select_columns
from carat.data.recipes.sources.table import BOOLEAN, UNKNOWN, Table
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
POSITION = re.compile(r"([0-9]{1,9})(?:\.0*)?")
"""A position among the names; pandas writes whole numbers beside unknown ones as 4.0."""
UNKNOWN_NAMES = UNKNOWN - {"none", "unknown", "-"}
"""Cells without a label, in lower case; the others may be names."""
LIST = re.compile(r"""\[(.*)\]|\(((?:['"\d].*)?)\)|\{(.*)\}|set\((.*)\)""", re.DOTALL)
"""A cell that is a list, or a tuple or set of Python."""
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
        for key in ("rule", "intensities") if self.column is not None else ("separator",):
            if key in given:
                raise ValueError(f"{key} has no effect with {'column' if self.column else 'columns'}")
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
    note: str
    """How the labels were read."""
    columns: list[str]
    """Columns that hold them."""

    def select(self, rows: NDArray[np.int64]) -> LabelValues:
        """Return the labels of some of the rows."""
        intensities = None if self.intensities is None else self.intensities[rows]
        return replace(self, present=self.present[rows], known=self.known[rows], intensities=intensities)


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
        f"a label is present where its column is {labels.rule}",
        list(selected),
    )
    return values, example


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
        positions = _Positions(names)
        found = {cell: positions.find_all(parsed[cell]) for cell in parsed}
        _check_no_indicators(parsed, names)
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
    return LabelValues(names, present, known, None, note, [labels.column]), example


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
    if number := next((name for name in names if _is_number(name)), None):
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


def _check_no_indicators(parsed: Mapping[str, Sequence[str] | None], names: Sequence[str]) -> None:
    """Check that cells are not all as long as there are labels, because then each has all labels.

    Raises:
        ValueError: they are zeros and ones by label, such as `[0, 1]` for two labels.
    """
    cells = [items for items in parsed.values() if items is not None]
    if len(names) > 1 and cells and all(len(x) == len(names) and set(x) <= {"0", "1"} for x in cells):
        raise ValueError(_describe_indicators(cells[0]))


def _describe_indicators(items: Sequence[str]) -> str:
    return (
        f"'{printable(shorten(' '.join(items), 60))}' look like zeros and ones, expected names or their "
        "positions; give one column per label instead"
    )


class _Positions:
    """Positions of names, found as they are, in another case, or as a number from 0."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: i for i, name in enumerate(names)}
        self._folded = {name.casefold(): i for i, name in enumerate(names)}
        self._are_unique = len(self._folded) == len(names)
        self._take_numbers = not any(map(_is_number, names))
        self._count = len(names)

    def find_all(self, names: Sequence[str] | None) -> list[int] | None:
        """Return the positions of the names in a cell, or None if the cell or one of the names is unknown.

        Raises:
            ValueError: the names are numbers, and one occurs twice.
        """
        found = [self._find(name) for name in names or ()]
        if names is None or None in found:
            return None
        if len(set(found)) < len(found) and not any(name in self._exact for name in names):
            raise ValueError(_describe_indicators(names))
        return [i for i in found if i is not None]

    def _find(self, name: str) -> int | None:
        if name in self._exact:
            return self._exact[name]
        if self._take_numbers and (match := POSITION.fullmatch(name)):
            return int(match[1]) if int(match[1]) < self._count else None
        return self._folded.get(name.casefold()) if self._are_unique else None


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


def split_names(cell: str, separator: str | None) -> list[str] | None:
    """Return the names in a cell, or None if it is unknown.

    >>> split_names('["joy", "fear"]', None), split_names("joy; fear", ";"), split_names("['joy']", None)
    (['joy', 'fear'], ['joy', 'fear'], ['joy'])
    >>> split_names("[]", None), split_names("NaN", None)
    ([], None)

    Raises:
        ValueError: the cell is a JSON object, or a list of lists or objects.
    """
    text = cell.strip()
    if text.startswith("{") and ":" in text:
        found = printable(shorten(text, 60))
        raise ValueError(f"'{found}' is an object, expected names; give one column per label instead")
    is_list = LIST.fullmatch(text)
    values = _parse_list(is_list) if is_list else text.split(separator) if separator else [text]
    names = [str(value).strip() for value in values]
    names = [name for name in names if name] if is_list or len(names) > 1 else names
    if is_list and {name.casefold() for name in names} <= {"true", "false"}:  # whether each label is present
        names = [str(BOOLEAN[name.casefold()]) for name in names]
    return None if any(name.casefold() in UNKNOWN_NAMES for name in names) else names


def _parse_list(cell: re.Match[str]) -> list[Any]:
    """Return the items of a list in JSON or as printed by Python or NumPy."""
    values: Any = None
    with suppress(ValueError, RecursionError):
        values = json.loads(cell[0])
    if isinstance(values, list) and any(isinstance(x, list | dict) for x in values):
        raise ValueError(f"'{printable(shorten(cell[0], 60))}' is a list of lists or objects, expected names")
    if isinstance(values, list) and all(isinstance(x, str | int) for x in values):
        return values
    text = next(inside for inside in cell.groups() if inside is not None)
    quoted = re.findall(r"'([^']*)'|\"([^\"]*)\"", text)
    return [a or b for a, b in quoted] if quoted else re.split(r"[,;\s]+", text)


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True
