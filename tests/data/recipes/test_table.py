from __future__ import annotations

import gzip
import os
from pathlib import Path

import numpy as np
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
        ("t.csv", b"", "t.csv: the table is empty"),
        ("t.csv", b"a,b\n", "the table has no rows"),
        ("t.csv", b"a,b\n1\n", "t.csv, line 2: data row 1 has 1 cell, but the header has 2"),
        ("t.csv", b"a\n\x81\n", "t.csv: not UTF-8 text, and its encoding was not recognized"),
        ("t.parquet", b"PAR1", "cannot be read as a table"),
        ("t.json", b"[]", r"is JSON; save it as JSON lines \(.jsonl\)"),
        ("t.jsonl", b'{"a": 1}\n[]\n', "t.jsonl, line 2: expected a JSON object"),
        ("t.jsonl", b'{"a": 1}\n{"a"\n', "t.jsonl, line 2: not valid JSON"),
        ("t.jsonl", b'{"a": 1, "a": 2}\n', r"line 1: not valid JSON \(duplicate key 'a'\)"),
        ("t.jsonl", b'{"a": ' + b"[" * 100_000, r"line 1: not valid JSON \(nested too deeply\)"),
        ("t.jsonl", b'{"a": ' + b"1" * 10_000 + b"}", "line 1: not valid JSON"),
        ("t.jsonl", b'{"a": "\\ud800"}', r"line 1: not valid JSON \(half of a surrogate pair\)"),
        ("t.jsonl", b'{"a": "' + b"x" * (9 << 20), "line 1: longer than 4 MB"),
        ("t.xlsx", b"", "t.xlsx: is a spreadsheet; save the sheet as CSV"),
    ],
)
def test_broken_tables(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        Table(tmp_path / name)
    assert "\n" not in str(error.value)


def test_json_lines_have_the_columns_of_all_objects(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl.gz"
    lines = ['{"id": 7, "text": "so glad", "labels": ["joy"]}', "", '{"id": "b", "score": 0.5, "text": null}']
    file.write_bytes(gzip.compress("\n".join(lines).encode()))
    table = Table(file)
    assert table.columns == ["id", "text", "labels", "score"]
    assert table.text("id") == ["7", "b"]
    assert table.text("text") == ["so glad", ""]
    assert table.text("labels") == ['["joy"]', ""]
    assert table.text("score") == ["", "0.5"]


def test_lists_in_parquet_are_json(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"x": [["joy", "fear"], None]}), tmp_path / "t.parquet")
    assert Table(tmp_path / "t.parquet").text("x") == ['["joy", "fear"]', ""]


def test_words_for_numbers(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x\nTrue\nFALSE\nyes\nNo\n 1 \n-.5e1\n")
    assert Table(tmp_path / "t.csv").numbers("x") == [1, 0, 1, 0, 1, -5]
    (tmp_path / "u.csv").write_text("x,y\nNaN,1\n,1\nn/a,1\n-nan(ind),1\n2,1\n")
    numbers = Table(tmp_path / "u.csv").numbers_or_unknown("x")
    assert np.isnan(numbers).tolist() == [True] * 4 + [False]


@pytest.mark.parametrize("number", ["1_000", "１", "0,5", "0x1", "1 2"])
def test_numbers_are_not_guessed(tmp_path: Path, number: str) -> None:
    (tmp_path / "t.csv").write_text(f'x,y\n"{number}",\n')
    with pytest.raises(DataError, match=f"data row 1: '{number}' is not a finite number"):
        Table(tmp_path / "t.csv").numbers_or_unknown("x")


def test_tables_are_joined(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x\np,1\nq,2\n")
    (tmp_path / "b.csv").write_text("x,id,y\n3,r,z\n")
    table = Table.join({"train": Table(tmp_path / "a.csv"), "test": Table(tmp_path / "b.csv")}, "split")
    assert table.text("id") == ["p", "q", "r"]
    assert table.numbers("x") == [1, 2, 3]
    assert table.text("split") == table.parts() == ["train", "train", "test"]
    assert table.where(2) == f"{tmp_path / 'b.csv'}: data row 1"
    kept = table.select(np.array([1, 2]))
    assert (kept.text("id"), kept.place(0), kept.place(1)) == (
        ["q", "r"],
        "a.csv: data row 2",
        "b.csv: data row 1",
    )
    with pytest.raises(DataError, match=r"a.csv: no column 'y', which the other tables have"):
        table.text("y")


def test_pipes_devices_and_folders_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    (tmp_path / "folder.csv").mkdir()
    for name, kind in (("pipe", "a named pipe"), ("zero", "a device"), ("folder", "a folder")):
        with pytest.raises(DataError, match=f"{name}.csv: is {kind}, expected a file"):
            Table(tmp_path / f"{name}.csv")


def test_tables_of_too_many_columns_are_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("," * 60_000 + "\n")
    with pytest.raises(DataError, match="line 1: more than 50000 cells"):
        Table(tmp_path / "t.csv")
    (tmp_path / "t.jsonl").write_text("".join(f'{{"k{i}": 1}}\n' for i in range(2000)))
    with pytest.raises(DataError, match=r"lines have different keys, 10.. in 10.. lines"):
        Table(tmp_path / "t.jsonl")
