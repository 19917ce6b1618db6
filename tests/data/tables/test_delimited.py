"""Delimited text: no row is lost in a quote, and every malformed row is named."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carat.data.tables import content
from carat.data.tables.delimited import Delimited
from carat.data.tables.format import TableFormat
from carat.utils.errors import DataError

HEADER = "id,fold,text,joy"
ROWS = [f"c{i},train,text number {i}{'!' * (i % 3)},{i % 2}" for i in range(24)]


def read(folder: Path, text: str | bytes, name: str = "t.csv", **format: object) -> Delimited:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Delimited(folder / name, TableFormat(**format))  # type: ignore[arg-type]


def with_rows(changes: dict[int, str], end: str = "\n") -> str:
    rows = [changes.get(i, row) for i, row in enumerate(ROWS)]
    return end.join([HEADER, *rows, ""])


def cells(table: Delimited, column: int = 2) -> list[str]:
    return [row.cells[column] for row in table]


SWALLOWED = {
    "to a later row": {4: 'c4,train,"he said,1', 10: 'c10,train,bye",0'},
    "to the next row": {4: 'c4,train,"he said,1', 5: 'c5,train,bye",0'},
    "to the end": {4: 'c4,train,"he said,1'},
    "and goes on": {4: 'c4,train,"he said,1', 10: 'c10,train,"bye,0'},
}


@pytest.mark.parametrize("changes", SWALLOWED.values(), ids=SWALLOWED)
def test_quote_that_swallows_rows_is_refused_with_its_line(tmp_path: Path, changes: dict[int, str]) -> None:
    with pytest.raises(DataError, match=r"t.csv, line 6: .*; if quotes are .* set quote: none") as error:
        read(tmp_path, with_rows(changes))
    assert len(str(error.value)) < 300 + len(str(tmp_path))
    table = read(tmp_path, with_rows(changes), quote="none")
    assert [row.cells[0] for row in table] == [f"c{i}" for i in range(24)]
    assert cells(table)[4] == '"he said'


@pytest.mark.parametrize("changes", SWALLOWED.values(), ids=SWALLOWED)
def test_quotes_of_tab_separated_tables_are_characters_if_they_would_swallow_rows(
    tmp_path: Path, changes: dict[int, str]
) -> None:
    table = read(tmp_path, with_rows(changes).replace(",", "\t"), "t.tsv")
    assert len(list(table)) == 24
    assert cells(table)[4] == '"he said'
    assert "t.tsv, line 6: a quote" in table.notes[0]
    assert "quotes are read as ordinary characters" in table.notes[0]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "text",
    [
        "so\nwhat",
        "well, he said:\nyes, no, maybe\n\nand, I, left",
        'a ""word""\nof his',
        "\n",
        "1,2,3\n4,5,6",
    ],
)
def test_text_in_quotes_may_span_lines(tmp_path: Path, text: str, end: str) -> None:
    text = text.replace("\n", end)
    table = read(tmp_path, with_rows({7: f'c7,train,"{text}",1'}, end))
    assert len(list(table)) == 24
    assert cells(table)[7] == text.replace('""', '"')
    assert [row.line for row in table][8] == 10 + len(text.split(end)) - 1


@pytest.mark.parametrize("order", ["{0},{1}", "{1},{0}"])
def test_text_in_the_first_or_last_column_may_span_lines(tmp_path: Path, order: str) -> None:
    rows = [order.format(f"c{i}", f'"text {i},\nof two lines"') for i in range(5)]
    rows += [order.format(f"c{i}", f"plain {i}") for i in range(5, 9)]
    table = read(tmp_path, "\n".join([order.format("id", "text"), *rows]))
    assert len(list(table)) == 9
    swallowed = [order.format("c9", '"he said'), order.format("c10", 'bye"')]
    if order == "{1},{0}":
        swallowed = ['"he said,c9', 'bye",c10']
    with pytest.raises(DataError, match=r"line 16: a quote opens a cell that runs to line 17"):
        read(tmp_path, "\n".join([order.format("id", "text"), *rows, *swallowed]))


def test_lines_that_look_like_rows_are_accepted_if_the_quote_is_given(tmp_path: Path) -> None:
    table = read(tmp_path, with_rows({4: 'c4,train,"he said,1\nc5,train,bye",0'}), quote='"')
    assert cells(table)[4] == "he said,1\nc5,train,bye"


def test_lines_of_a_single_column_cannot_be_told_from_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="line 3: a quote opens a cell that runs to line 4"):
        read(tmp_path, 'text\nso\n"he said\nbye"\n')


def test_quotes_within_cells_are_characters(tmp_path: Path) -> None:
    table = read(tmp_path, with_rows({3: 'c3,train,he said "no" to 5" screens,1'}))
    assert cells(table)[3] == 'he said "no" to 5" screens'


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("c5,train,text", "line 7: data row 6 has 3 cells, but the header has 4"),
        ("c5,train,so, what,1", "line 7: data row 6 has 5 cells, but the header has 4"),
        ("c5", "line 7: data row 6 has 1 cell, but the header has 4"),
        ('c5,train,"a"b,1', "line 7: a quoted cell goes on after its closing quote in line 7"),
        ("c5,train,\0,1", "line 7: contains a NUL byte"),
        (f"c5,train,{'x' * 200_000},1", "line 7: a cell is longer than 131072 characters"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_malformed_rows_are_named(tmp_path: Path, row: str, message: str, end: str) -> None:
    with pytest.raises(DataError, match=message):
        list(read(tmp_path, with_rows({5: row}, end)))


@pytest.mark.parametrize("header", ["a,b,a", "a,b, a", "a,b,a "])
def test_columns_of_the_same_name_are_refused(tmp_path: Path, header: str) -> None:
    with pytest.raises(DataError, match="columns 1 and 3 are both named 'a'; rename one of them"):
        read(tmp_path, f"{header}\n1,2,3\n")


def test_columns_without_a_name_are_allowed(tmp_path: Path) -> None:
    assert read(tmp_path, ",a,\n0,1,2\n").names == ["", "a", ""]


@pytest.mark.parametrize(
    ("name", "separator", "noted"),
    [
        *(("t.csv", ",", 0), ("t.csv", ";", 1), ("t.csv", "\t", 1), ("t.tsv", "\t", 0), ("t.tsv", ",", 1)),
        *(("t.txt", "\t", 0), ("t.txt", ";", 0), ("t.txt", "|", 0), ("t.txt", ",", 0)),
    ],
)
def test_separators_are_detected(tmp_path: Path, name: str, separator: str, noted: int) -> None:
    table = read(tmp_path, with_rows({}).replace(",", separator), name)
    assert table.names == HEADER.split(",")
    assert len(list(table)) == 24
    assert len(table.notes) == noted


def test_separators_are_given(tmp_path: Path) -> None:
    assert read(tmp_path, "a:b,c\n1:2,3\n", separator=":").names == ["a", "b,c"]
    assert read(tmp_path, "a\tb,c\n1\t2,3\n", separator="tab").names == ["a", "b,c"]
    assert read(tmp_path, "sep=;\na;b\n1;2\n").names == ["a", "b"]
    assert [row.line for row in read(tmp_path, "sep=;\na;b\n1;2\n")] == [3]


def test_tables_without_a_header(tmp_path: Path) -> None:
    assert read(tmp_path, "1,2\n3,4\n", header=False).names == ["0", "1"]
    table = read(tmp_path, "1,2\n3,4\n", header=False, columns=["a", "b"])
    assert table.names == ["a", "b"]
    assert cells(table, 1) == ["2", "4"]
    with pytest.raises(DataError, match="line 1: data row 1 has 2 cells, but `columns` names 3"):
        read(tmp_path, "1,2\n3,4\n", header=False, columns=["a", "b", "c"])
    with pytest.raises(DataError, match="line 2: data row 2 has 1 cell, but the first row has 2"):
        list(read(tmp_path, "1,2\n3\n", header=False))


ENCODED = [
    ("don’t – “naïve”", "cp1252", "cp1252"),
    ("今天天气很好，我很开心", "gbk", "gb18030"),
    ("Сегодня я очень рад, как дела у тебя", "cp1251", "cp1251"),
    ("今日はとても嬉しいです", "cp932", "cp932"),
    ("naïve 今天", "utf-16", "utf-16"),
    ("naïve day", "utf-16-le", "utf-16-le"),
    ("naïve day", "utf-16-be", "utf-16-be"),
    ("naïve 今天", "utf-32", "utf-32"),
]


@pytest.mark.parametrize(("text", "encoding", "detected"), ENCODED)
def test_encodings_are_detected_and_said(tmp_path: Path, text: str, encoding: str, detected: str) -> None:
    table = read(tmp_path, with_rows({5: f'c5,train,"{text}",1'}).encode(encoding))
    assert table.names == HEADER.split(",")
    assert cells(table)[5] == text
    assert table.notes == [
        f"t.csv is not UTF-8; read as {detected}, which was detected; to change that, set encoding "
        "(--encoding)"
    ]
    given_encoding = read(
        tmp_path, with_rows({5: f'c5,train,"{text}",1'}).encode(encoding), encoding=encoding
    )
    assert cells(given_encoding)[5] == text
    assert given_encoding.notes == []


def test_utf8_with_or_without_mark_needs_no_note(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig"):
        table = read(tmp_path, with_rows({5: "c5,train,naïve 今天,1"}).encode(encoding))
        assert (table.names[0], cells(table)[5], table.notes) == ("id", "naïve 今天", [])


def test_text_in_another_encoding_than_given_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"t.csv, line 7: not text in utf-8 .*; set its encoding .--encoding., e.g. cp1252"
    ):
        list(read(tmp_path, with_rows({5: "c5,train,naïve,1"}).encode("cp1252"), encoding="utf8"))


FOREIGN = {
    b"PK\x03\x04": "is a ZIP archive or an Excel workbook; save the table as CSV",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n": "is a Git LFS pointer",
    b"\n <!DOCTYPE html><html>": "is a web page",
    b"PAR1\0\0": "is a Parquet file; rename it",
    b"": "the table is empty",
    b"\n\r\n": "the table is empty",
}


@pytest.mark.parametrize(("start", "message"), FOREIGN.items(), ids=FOREIGN.values())
def test_other_files_are_named(tmp_path: Path, start: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, start)


def test_spreadsheets_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t.xlsx: is a spreadsheet; save the sheet as CSV"):
        read(tmp_path, b"whatever", "t.xlsx")


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bz2
    import gzip

    monkeypatch.setattr(content, "MIN_LIMIT", 10**5)
    table = (HEADER + "\n" + "c1,train,x,1\n" * 30_000).encode()
    for name, compressed in (("t.csv.gz", gzip.compress(table)), ("t.csv.bz2", bz2.compress(table))):
        with pytest.raises(DataError, match=r"decompresses to more than 0 MB, 50 times its size"):
            read(tmp_path, compressed, name)
    assert len(list(read(tmp_path, gzip.compress(with_rows({}).encode()), "t.csv.gz"))) == 24
    assert len(list(read(tmp_path, table))) == 30_000
    with pytest.raises(DataError, match=r"line 26: longer than 4 MB"):
        read(tmp_path, with_rows({}).encode() + b"x" * (9 << 20))


@pytest.mark.parametrize("cut", [20, 9, 1])
def test_truncated_archives_are_refused(tmp_path: Path, cut: int) -> None:
    import gzip

    with pytest.raises(DataError, match=r"t.csv.gz: cannot be read"):
        read(tmp_path, gzip.compress(with_rows({}).encode())[:-cut], "t.csv.gz")


plain = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@given(
    st.lists(st.tuples(plain, plain, st.integers(0, 9)), min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n"]),
)
def test_what_csv_writes_is_read_back_or_refused(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, int]], end: str
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator=end, quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(["a", "b", "c"])
    writer.writerows(rows)
    file = tmp_path_factory.getbasetemp() / "given.csv"
    file.write_bytes(buffer.getvalue().encode())
    try:
        found = [row.cells for row in Delimited(file, TableFormat())]
    except DataError as error:
        assert "looks like a row" in str(error)  # noqa: PT017
        found = [row.cells for row in Delimited(file, TableFormat(quote='"'))]
    assert found == [[a, b, str(c)] for a, b, c in rows]


@given(st.binary(max_size=60), st.sampled_from(["x.csv", "x.tsv", "x.txt", "x.csv.gz", "x.csv.zst"]))
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, name: str
) -> None:
    file = tmp_path_factory.getbasetemp() / name
    file.write_bytes(raw)
    try:
        widths = {len(row.cells) for row in Delimited(file, TableFormat())}
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert len(widths) <= 1
