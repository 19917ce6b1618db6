"""Tables of samples, CSV, TSV or Parquet, whose cells are read as text."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from carat.utils.errors import DataError, did_you_mean

BOOLEAN = {"true": 1, "false": 0}


class Table:
    """A table whose cells are text; `numbers` parses a column.

    Args:
        file: `.csv` or `.tsv`, plain or compressed (`.gz`, `.bz2`, `.zst`), or `.parquet`.

    Raises:
        DataError: the file cannot be read or has no rows.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        if not file.is_file():
            raise DataError(f"{file}: no such file")
        try:
            self._table = _read(file)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            first_line = str(error).splitlines()[0]
            raise DataError(f"{file}: cannot be read as a table ({first_line})") from error
        if not len(self._table):
            raise DataError(f"{file}: the table has no rows")

    def __len__(self) -> int:
        return len(self._table)

    @property
    def columns(self) -> list[str]:
        """Column names."""
        names: list[str] = self._table.column_names
        return names

    def text(self, column: str) -> list[str]:
        """Return a column as text; missing cells are empty.

        Raises:
            DataError: no such column.
        """
        names = self._table.column_names
        if column not in names:
            hint = did_you_mean(column, names) or f"; available: {', '.join(names)}"
            raise DataError(f"{self.file}: no column '{column}'{hint}")
        try:
            values: list[str | None] = self._table[column].cast(pa.string()).to_pylist()
        except pa.ArrowException as error:
            dtype = self._table[column].type
            raise DataError(
                f"{self.file}: column '{column}' has type {dtype}, expected text or numbers"
            ) from error
        return [value or "" for value in values]

    def numbers(self, column: str) -> list[float]:
        """Return a column as finite numbers; "true" and "false" are 1 and 0.

        Raises:
            DataError: no such column, or a cell is not a finite number.
        """
        numbers = []
        for row, cell in enumerate(self.text(column), start=1):
            try:
                number = float(BOOLEAN.get(cell, cell))
            except ValueError:
                number = float("nan")
            if not abs(number) < float("inf"):
                raise DataError(
                    f"{self.file}: column '{column}', data row {row}: '{cell}' is not a finite number"
                )
            numbers.append(number)
        return numbers


def _read(file: Path) -> pa.Table:
    if file.suffix == ".parquet":
        return pa.parquet.read_table(file)
    delimiter = "\t" if ".tsv" in file.suffixes else ","
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    with pa.csv.open_csv(file, parse_options=parse) as reader:
        names = reader.schema.names
    as_text = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
    return pa.csv.read_csv(file, parse_options=parse, convert_options=as_text)
