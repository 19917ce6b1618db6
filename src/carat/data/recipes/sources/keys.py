"""Matching of the keys of a table with those of a feature file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

EXTENSION = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$")
"""File extension at the end of a key, such as `.wav`."""


def without_extension(key: str) -> str:
    """Remove a file extension from the end of a key.

    >>> without_extension("clip.mp4"), without_extension("v1.25")
    ('clip', 'v1.25')
    """
    return EXTENSION.sub("", key)


DIFFERENCES: Mapping[str, Callable[[str], str]] = {
    "in upper and lower case": str.casefold,
    "in spaces around them": str.strip,
    "in the folder": lambda key: re.split(r"[/\\]", key)[-1],
    "in leading zeros": lambda key: re.sub(r"(?<!\d)0+(?=\d)", "", key),
    "in the characters between their parts": lambda key: re.sub(r"[^0-9A-Za-z]+", "_", key),
    "in what follows the last separator": lambda key: re.sub(r"[^0-9A-Za-z][0-9A-Za-z]*$", "", key),
}
"""Usual differences between the keys of a table and of a file, with what removes them."""


class KeyIndex:
    """Positions of features by key; a file extension may be missing on either side.

    Args:
        positions: position by key, in the order of the file.
    """

    def __init__(self, positions: Mapping[str, Any]) -> None:
        self.positions = positions
        stems = Counter(map(without_extension, positions))
        self._by_stem = {
            stem: position
            for key, position in positions.items()
            if stems[stem := without_extension(key)] == 1
        }
        self._ambiguous = {stem for stem, count in stems.items() if count > 1}
        self.missing: dict[str, None] = {}
        """Keys that were looked up and are not in the file."""
        self.without_extension = 0
        """Keys that matched without a file extension."""

    def get(self, key: str) -> Any:
        """Return the position of a key; None if the file does not have it."""
        if key in self.positions:
            return self.positions[key]
        position = self._by_stem.get(without_extension(key)) if key else None
        if position is None:
            self.missing[key] = None
        else:
            self.without_extension += 1
        return position

    def describe_missing(self) -> str:
        """Describe missing keys: their number, examples of both sides, and the likely difference."""
        examples = ", ".join(f"'{key}'" for key in list(self.missing)[:2])
        theirs = ", ".join(f"'{key}'" for key in list(self.positions)[:2])
        ambiguous = next((key for key in self.missing if without_extension(key) in self._ambiguous), None)
        if ambiguous is not None:
            stem = without_extension(ambiguous)
            keys = [key for key in self.positions if without_extension(key) == stem]
            return (
                f"'{ambiguous}' is any of {', '.join(map(repr, keys[:4]))}: use keys with the extension, or "
                "keep one of them"
            )
        return (
            f"{len(self.missing)} keys of the table are not among the {len(self.positions)} of the file, "
            f"e.g. {examples}; the file has e.g. {theirs}{likely_difference(self.missing, self.positions)}"
        )


def likely_difference(keys: Iterable[str], available: Iterable[str]) -> str:
    """Say in which way missing keys probably differ from available ones; empty if unknown.

    >>> likely_difference(["A_1", "A_2"], ["a_1", "a_2"])
    '; they differ in upper and lower case'
    """
    wanted, offered = list(keys), list(available)
    stems = {without_extension(key) for key in offered}
    for difference, normalize in DIFFERENCES.items():
        normalized = {normalize(key) for key in [*offered, *stems]}
        matches = sum(normalize(without_extension(key)) in normalized for key in wanted)
        if matches and 2 * matches >= len(wanted):
            return f"; they differ {difference}"
    return ""
