"""Objects of JSON lines, one on each line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from carat.data.tables.content import TextContent
from carat.data.tables.format import TableFormat
from carat.utils.errors import DataError
from carat.utils.reading import parse_json


class JsonLines:
    """The objects of a file of JSON lines; empty lines are skipped.

    Args:
        file: text file, plain or compressed.
        format: only its encoding applies.

    Raises:
        DataError: the file is not text.
    """

    def __init__(self, file: Path, format: TableFormat) -> None:
        self.file = file
        self._content = TextContent(file, format.encoding)
        self.notes = self._content.notes

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the number of each line and its object.

        Raises:
            DataError: a line is not a JSON object, or has a key twice.
        """
        for number, line in enumerate(self._content.lines(), start=1):
            if not line.strip():
                continue
            where = f"{self.file}, line {number}"
            content = parse_json(line, where, unique_keys=True)
            if not isinstance(content, dict):
                raise DataError(f'{where}: expected a JSON object such as {{"text": …}}, found another value')
            yield number, content


def to_cell(value: Any) -> str:
    """Convert a JSON value to the text of a cell; lists and objects stay JSON.

    >>> to_cell(None), to_cell(True), to_cell(0.5), to_cell(["joy"])
    ('', 'true', '0.5', '["joy"]')
    """
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
