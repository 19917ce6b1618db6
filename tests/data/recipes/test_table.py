from __future__ import annotations

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from carat.data.recipes.sources.table import Table
from carat.utils.errors import DataError

CSV = 'id,x,said\n007,1.5,"a, ""b"""\n008,,null\n'


def test_csv_cells_stay_text(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text(CSV)
    table = Table(file)
    assert len(table) == 2
    assert table.text("id") == ["007", "008"]
    assert table.text("said") == ['a, "b"', "null"]
    with pytest.raises(DataError, match="column 'x', data row 2: '' is not a finite number"):
        table.numbers("x")


def test_compressed_tab_separated_and_parquet(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        file.write(CSV)
    (tmp_path / "t.tsv").write_text("id\tx\nä\t2\n")
    columns = {"id": ["p", None], "x": [1, 2]}
    pa.parquet.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert Table(tmp_path / "t.csv.gz").text("id") == ["007", "008"]
    assert Table(tmp_path / "t.tsv").text("id") == ["ä"]
    assert Table(tmp_path / "t.tsv").numbers("x") == [2.0]
    assert Table(tmp_path / "t.parquet").text("id") == ["p", ""]
    assert Table(tmp_path / "t.parquet").numbers("x") == [1.0, 2.0]


@pytest.mark.parametrize("number", ["nan", "inf", "-Infinity", "one"])
def test_numbers_must_be_finite(tmp_path: Path, number: str) -> None:
    file = tmp_path / "t.csv"
    file.write_text(f"x\n1\n{number}\n")
    with pytest.raises(DataError, match=f"data row 2: '{number}' is not a finite number"):
        Table(file).numbers("x")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", b"", "cannot be read as a table"),
        ("t.csv", b"a,b\n", "the table has no rows"),
        ("t.csv", b"a,b\n1\n", "cannot be read as a table"),
        ("t.csv", b"a\n\xff\xfe\n", "cannot be read as a table"),
        ("t.parquet", b"PAR1", "cannot be read as a table"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Table(tmp_path / name)
