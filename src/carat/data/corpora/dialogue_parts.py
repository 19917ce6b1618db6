"""Parts of dialogue pickles: what each position of the tuple holds, as seen from all of its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from carat.data.pickled.globals import Floats
from carat.data.pickled.reading import flatten_runs, read_pickle, text, to_array
from carat.utils.errors import DataError, printable

Kind = Literal["texts", "integers", "vectors", "indicators", "IDs", "other"]
"""Texts, integers or vectors of the utterances by dialogue, or a list of dialogue IDs. Indicators are vectors
of only 0 and 1, such as one-hot vectors of speakers, and are never features."""
MAX_PARTS = 64
SAMPLED_DIALOGUES = 200
"""Approximate number of dialogues whose vectors are searched for their range."""
MAX_WORDS = 4
"""Number of different texts up to which they are listed."""


@dataclass(frozen=True)
class Part:
    """What a part of a dialogue pickle holds."""

    position: int
    value: Any
    """A mapping by dialogue, or the list of IDs; for the kind "other", the part as it is."""
    kind: Kind
    container: str
    """Type of the part, and of its values."""
    width: int = 0
    """Width of vectors and indicators; 0 if it differs."""
    low: float = 0
    high: float = 0
    """Range of integers and, in a sample of the dialogues, of vectors."""
    count: int = 0
    """Number of integers."""
    words: frozenset[str] = frozenset()
    """The different texts, if there are few."""

    @property
    def content(self) -> str:
        """Kind, width and range in a few words."""
        return {
            "texts": f"text {'/'.join(sorted(self.words))}".strip(),
            "integers": f"integers {self.low:g}..{self.high:g}",
            "vectors": f"{self.width or 'unequally'} wide {self.low:.2g}..{self.high:.2g}",
            "indicators": f"{self.width or 'unequally'} wide 0/1",
            "IDs": f"{len(self.value) if self.kind == 'IDs' else 0} IDs",
            "other": "",
        }[self.kind]

    def __str__(self) -> str:
        return printable(f"{self.position} {self.container} {self.content}".strip())


def list_parts(parts: Sequence[Part]) -> str:
    """List all parts briefly, with the most frequent container in front, because messages are shortened."""
    common = Counter(part.container for part in parts).most_common(1)[0][0] if parts else "no"
    described = [
        f"{part.position}: {part.content}".rstrip()
        if part.container == common and part.content
        else f"{part.position}: {part.container} {part.content}".rstrip()
        for part in parts
    ]
    return printable(f"{common} parts {', '.join(described)}".rstrip())


def read_parts(file: Path) -> list[Part]:
    """Read a dialogue pickle and describe its parts.

    Raises:
        DataError: the file cannot be read, or is not a tuple or list of parts.
    """
    values = read_pickle(file)
    if not isinstance(values, (tuple, list)):
        raise DataError(f"{file}: expected a tuple of parts, found {type(values).__name__}")
    if len(values) > MAX_PARTS:
        raise DataError(f"{file}: expected a tuple of at most {MAX_PARTS} parts, found {len(values)}")
    return describe_parts(values)


def describe_parts(values: Sequence[Any]) -> list[Part]:
    """Describe what each part holds; "other" for everything that is not in a known form."""
    parts = []
    for position, value in enumerate(values):
        container = "None" if value is None else type(value).__name__
        part = Part(position, value, "other", container)
        try:
            if isinstance(value, Mapping):
                part = _describe_mapping(part)
            elif isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
                part = _describe_list(part)
        except (DataError, TypeError, ValueError, LookupError, AttributeError):
            pass  # values of another form
        parts.append(part)
    return parts


def _describe_list(part: Part) -> Part:
    value = part.value.reshape(-1).tolist() if isinstance(part.value, np.ndarray) else part.value
    ids = [text(x, "ID") for x in value]
    if isinstance(value, (set, frozenset)):
        ids.sort()
    return replace(part, value=ids, kind="IDs") if ids else part


def _describe_mapping(part: Part) -> Part:
    by_dialogue = {text(id, "ID"): flatten_runs(x, "values") for id, x in part.value.items()}
    first = next((x for x in by_dialogue.values() if len(x)), None)
    if first is None or len(by_dialogue) < len(part.value):
        return part
    described = replace(part, container=f"{part.container}[{type(first).__name__}]", value=by_dialogue)
    if isinstance(first[0], (str, bytes)):
        words = {text(x, "text") for values in by_dialogue.values() for x in values}
        return replace(described, kind="texts", words=frozenset(words if len(words) <= MAX_WORDS else ()))
    if isinstance(first[0], (int, float, np.number)):
        return _describe_numbers(described, part)
    return _describe_vectors(described, part)


def _describe_numbers(described: Part, part: Part) -> Part:
    numbers = np.concatenate([to_array(x, "numbers") for x in described.value.values()])
    is_small = numbers.dtype.kind in "iuf" and bool((np.abs(numbers) < 1000).all())
    if not is_small or (numbers != numbers.round()).any():
        return replace(described, value=part.value)
    return replace(
        described, kind="integers", low=int(numbers.min()), high=int(numbers.max()), count=len(numbers)
    )


def _describe_vectors(described: Part, part: Part) -> Part:
    names = list(described.value)
    widths = {width for id in names for width in _widths(described.value[id])}
    low, high, binary = np.inf, -np.inf, True
    for id in names[:: 1 + len(names) // SAMPLED_DIALOGUES]:
        for row in rows_of(described.value[id], "vectors"):
            if row.dtype.kind not in "iufb":
                return replace(described, value=part.value)
            finite = row[np.isfinite(row)]
            if len(finite):
                low, high = min(low, float(finite.min())), max(high, float(finite.max()))
            binary = binary and bool(np.isin(finite, (0, 1)).all())
    if not low <= high:
        return replace(described, value=part.value)
    width = widths.pop() if len(widths) == 1 else 0
    return replace(described, kind="indicators" if binary else "vectors", width=width, low=low, high=high)


def _widths(rows: Any) -> Iterator[int]:
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        yield int(np.prod(rows.shape[1:]))
        return
    for row in rows:
        if isinstance(row, np.ndarray):
            yield row.size
        else:
            yield sum(len(x.values) if isinstance(x, Floats) else 1 for x in row)


def rows_of(values: Any, what: str) -> list[NDArray[Any]]:
    """Return the vectors of a dialogue's utterances.

    Raises:
        DataError: an utterance is not a vector of numbers.
    """
    return [to_array(row, what).reshape(-1) for row in values]
