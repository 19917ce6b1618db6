"""Names of labels in the cells of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from carat.data.recipes.sources.table import BOOLEAN, UNKNOWN
from carat.utils.errors import printable, shorten

POSITION = re.compile(r"([0-9]{1,9})(?:\.0*)?")
"""A position among the names; pandas writes whole numbers beside unknown ones as 4.0."""
UNKNOWN_NAMES = UNKNOWN - {"none", "unknown", "-"}
"""Cells without a label, in lower case; the others may be names."""
LIST = re.compile(r"""\[(.*)\]|\(((?:['"\d].*)?)\)|\{(.*)\}|set\((.*)\)""", re.DOTALL)
"""A cell that is a list, or a tuple or set of Python."""


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


def is_number(name: str) -> bool:
    """Whether a name is a number."""
    try:
        float(name)
    except ValueError:
        return False
    return True


def check_no_indicators(parsed: Mapping[str, Sequence[str] | None], names: Sequence[str]) -> None:
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


class Positions:
    """Positions of names, found as they are, in another case, or as a number from 0."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: i for i, name in enumerate(names)}
        self._folded = {name.casefold(): i for i, name in enumerate(names)}
        self._are_unique = len(self._folded) == len(names)
        self._take_numbers = not any(map(is_number, names))
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
