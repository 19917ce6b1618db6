"""Tables in Markdown, CSV, HTML, pandas and on the terminal."""

from __future__ import annotations

import csv
import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from carat.utils.errors import CaratError
from carat.utils.tables import Table

ODD = [
    "a|b",
    "back\\slash",
    "<script>alert(1)</script>",
    "quotes \" and '",
    "two\nlines",
    "p < .001",
    "[red]",
]
"""Texts that need escaping in some format."""


def markdown_cells(line: str) -> list[str]:
    """The cells of a line of a GitHub table, unescaped."""
    cells, cell, escaped = [], "", False
    for character in line.strip().removeprefix("|").removesuffix("|"):
        if escaped or character not in "\\|":
            cell, escaped = cell + character, False
        elif character == "\\":
            escaped = True
        else:
            cells, cell = [*cells, cell], ""
    return [x.strip() for x in (*cells, cell)]


def test_markdown_cells_round_trip() -> None:
    table = Table(["name", "x|y"], [[text, i] for i, text in enumerate(ODD)])
    head, rule, *lines = table.to_markdown().splitlines()
    assert markdown_cells(head) == ["name", "x|y"]
    assert rule == "|---|---|"
    found = [markdown_cells(line) for line in lines]
    assert found == [[text.replace("\n", "<br>"), str(i)] for i, text in enumerate(ODD)]
    assert "\\<script>" in table.to_markdown()
    assert "p < .001" in table.to_markdown()


def test_markdown_title_is_above_the_table() -> None:
    text = Table(["a"], [["b"]], title="One | two").to_markdown()
    assert text.splitlines() == ["**One \\| two**", "", "| a |", "|---|", "| b |"]


def test_aligned_columns_are_as_wide_as_their_widest_cell() -> None:
    lines = Table(["", "seconds"], [["carat", 0.5], ["late-fusion", 11.25]], digits=3).to_markdown(
        aligned=True
    )
    assert lines.splitlines() == [
        "|             | seconds |",
        "|-------------|---------|",
        "| carat       | 0.500   |",
        "| late-fusion | 11.250  |",
    ]


class Cells(HTMLParser):
    """Tags and texts of an HTML table, by row."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.caption = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("th", "td"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data if data != "\n" else ""
        elif not self.rows:
            self.caption += data.strip()


def test_html_is_escaped() -> None:
    cells = [text for text in ODD if "\n" not in text]
    table = Table(["<b>", "n"], [[text, i] for i, text in enumerate(cells)], title="A & B")
    page = Cells()
    page.feed(table.to_html())
    assert page.caption == "A & B"
    assert page.rows == [["<b>", "n"], *([text, str(i)] for i, text in enumerate(cells))]
    assert set(page.tags) == {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert table._repr_html_() == table.to_html()


def test_csv_round_trip(tmp_path: Path) -> None:
    rows = [[text, 0.1 + i / 3, np.float64(1) / 3, None, i] for i, text in enumerate(ODD)]
    table = Table(["id", "plain", "numpy", "empty", "count"], rows, title="not in CSV", digits=1)
    file = tmp_path / "t.csv"
    text = table.to_csv(file)
    assert file.read_bytes().decode() == text
    with file.open(newline="", encoding="utf-8") as opened:
        head, *lines = csv.reader(opened)
    assert head == list(table.columns)
    for line, row in zip(lines, rows, strict=True):
        assert line[0] == row[0]
        assert (float(line[1]), float(line[2])) == (row[1], row[2])  # every digit, whatever `digits` is
        assert (line[3], line[4]) == ("", str(row[4]))


def test_csv_is_written_atomically(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "t.csv"
    Table(["a"], [[1]]).to_csv(file)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        Table(["a"], [[2]]).to_csv(file)
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
    assert file.read_text() == "a\n1\n"


def test_empty_table_has_headings() -> None:
    table = Table(["label", "F1"], [])
    assert table.to_markdown() == "| label | F1 |\n|---|---|"
    assert table.to_markdown(aligned=True) == "| label | F1  |\n|-------|-----|"
    assert table.to_csv() == "label,F1\r\n"
    assert table.to_html().count("<tr>") == 1
    assert list(table.to_frame().columns) == ["label", "F1"]


def test_rows_must_match_the_columns() -> None:
    with pytest.raises(ValueError, match="row 2 has 1 cells, expected 2"):
        Table(["a", "b"], [[1, 2], [3]])
    with pytest.raises(ValueError, match="needs columns"):
        Table([], [])
    with pytest.raises(ValueError, match="needs columns"):
        Table.from_records([])


def test_missing_keys_of_records_are_empty_cells() -> None:
    table = Table.from_records([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25, "late": 7}])
    assert list(csv.reader(io.StringIO(table.to_csv()))) == [
        ["epoch", "loss", "late"],
        ["1", "0.5", ""],
        ["2", "0.25", "7"],
    ]


def test_digits_apply_to_floats_only() -> None:
    cells = [1, True, 0.5, np.float32(0.25), np.int64(3), "0.123456", None, float("nan")]
    table = Table([str(i) for i in range(len(cells))], [cells], digits=2)
    (line,) = table.to_markdown().splitlines()[2:]
    assert markdown_cells(line) == ["1", "True", "0.50", "0.25", "3", "0.123456", "", "nan"]


def test_frame_has_unformatted_values() -> None:
    frame = Table(["label", "f1"], [["happy", 1 / 3], ["sad", 0.5]], digits=1).to_frame()
    assert frame["f1"].tolist() == [1 / 3, 0.5]
    assert frame["label"].tolist() == ["happy", "sad"]


def test_missing_pandas_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(CaratError, match="pip install pandas"):
        Table(["a"], []).to_frame()


def test_terminal_shows_brackets_and_fits_the_width(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "41")
    Table(["[b]name", "value"], [["[red]x", 0.12345], ["word " * 20, 2]], "Title [x]", digits=3).show()
    shown = capsys.readouterr().out
    assert "Title [x]" in shown
    assert "[b]name" in shown
    assert "[red]x" in shown
    assert "0.123" in shown
    assert max(map(len, shown.splitlines())) == 41


def test_bare_table_has_neither_headings_nor_lines(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(["verdict", "check"], [["ok", "content"], ["fail", "labels"]])
    table.show(align="left", bare=True, styles={"fail": "red"})
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["ok", "content"],
        ["fail", "labels"],
    ]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+a", "'+a"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("  =1", "'  =1"),
        ("-0.5", "-0.5"),
        ("+.123", "+.123"),
        (-0.5, "-0.5"),
        (-1e-07, "-1e-07"),
        ("a=b", "a=b"),
        ("", ""),
        (None, ""),
    ],
)
def test_formulas_in_csv_are_marked_and_numbers_are_not(cell: object, written: str) -> None:
    for table in (Table(["a", "b"], [[cell, 0]]), Table(["b", "a"], [[0, cell]])):
        row = next(csv.DictReader(io.StringIO(table.to_csv(), newline="")))
        table_row = list(csv.DictReader(io.StringIO(table.to_csv(), newline="")))
        assert table_row == [row]
        assert row == {"a": written, "b": "0"}
    assert next(csv.reader([Table(["=x"], []).to_csv()])) == ["'=x"]


def test_control_characters_never_reach_the_terminal_or_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(["a\x1b[31m"], [["b\x1b]0;x\x07"], ["<script>\x00"]], title="c\x9b1m")
    table.show()
    shown = capsys.readouterr().out
    assert "b?]0;x?" in shown
    for text in (shown, table.to_markdown()):
        assert not {"\x1b", "\x07", "\x00", "\x9b"} & set(text)
    assert r"\<script>?" in table.to_markdown()
