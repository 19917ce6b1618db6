"""Labels of recipes: numeric columns, columns of names, and unknown ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from carat.config.base import parse
from carat.data.recipes.labels import Labels, LabelValues, read_labels
from carat.data.recipes.sources.table import Table
from carat.utils.errors import ConfigError, DataError


def read(folder: Path, cells: list[str], **labels: Any) -> tuple[LabelValues, list[int], list[str]]:
    """Read the labels of a table whose column `x` has these cells; cells must not contain quotation marks."""
    rows = [f"r{i}\t{cell.replace(chr(9), ' ')}\ttext" for i, cell in enumerate(cells)]
    (folder / "t.tsv").write_text("\n".join(["id\tx\ty", *rows]))
    values, kept, notes = read_labels(
        Table(folder / "t.tsv"), parse(Labels, {"column": "x", **labels}, "labels"), folder
    )
    return values, kept.tolist(), notes


def present(values: LabelValues) -> list[list[str]]:
    return [
        [name for name, is_present in zip(values.names, row, strict=True) if is_present]
        for row in values.present
    ]


def test_names_in_a_column(tmp_path: Path) -> None:
    values, kept, notes = read(tmp_path, ["joy", "neutral", " joy ", "anger"])
    assert values.names == ["anger", "joy", "neutral"]
    assert present(values) == [["joy"], ["neutral"], ["joy"], ["anger"]]
    assert (kept, notes, values.intensities) == ([0, 1, 2, 3], [], None)


@pytest.mark.parametrize(
    ("cells", "labels"),
    [
        (['["joy", "fear"]', "[]", '["joy"]'], {}),
        (["['joy', 'fear']", "[]", "['joy']"], {}),
        (["['joy' 'fear']", "[]", "['joy']"], {}),
        (["[joy, fear]", "[ ]", "[joy]"], {}),
        (["('joy', 'fear')", "()", "('joy',)"], {}),
        (["{'joy', 'fear'}", "set()", "{'joy'}"], {}),
        (["(1, 0)", "()", "(1,)"], {"names": ["fear", "joy"]}),
        (["joy;fear", "[]", "joy"], {}),
        (["joy; fear;", "[]", "joy"], {}),
        (["joy, fear", "[]", "joy"], {}),
        (["joy|fear", "[]", "joy"], {}),
        (["joy fear", "[]", "joy"], {"separator": " "}),
        (["joy/fear", "[]", "joy"], {"separator": "/"}),
        (["Joy;FEAR", "[]", "joy"], {"names": ["fear", "joy"]}),
        (["1;0", "[]", "1"], {"names": ["fear", "joy"]}),
        (["1,0", "[]", "1.0"], {"names": ["fear", "joy"]}),
        (["[1, 0]", "[]", "[1]"], {"names": "names.txt"}),
    ],
)
def test_several_names_in_a_cell(tmp_path: Path, cells: list[str], labels: dict[str, Any]) -> None:
    (tmp_path / "names.txt").write_text("fear\njoy\n\n")
    values, kept, _ = read(tmp_path, cells, **labels)
    assert values.names == ["fear", "joy"]
    assert values.present.tolist() == [[1, 1], [0, 0], [0, 1]]
    assert kept == [0, 1, 2]


def test_names_keep_their_order_and_may_contain_separators(tmp_path: Path) -> None:
    values, _, _ = read(tmp_path, ["sad, down", "joy"], names=["sad, down", "joy", "fear"])
    assert values.present.tolist() == [[1, 0, 0], [0, 1, 0]]
    values, _, _ = read(tmp_path, ["sad, down", "joy"], separator="none")
    assert values.names == ["joy", "sad, down"]


def test_names_in_parentheses_are_names(tmp_path: Path) -> None:
    assert read(tmp_path, ["(unclear)", "joy"])[0].names == ["(unclear)", "joy"]


@pytest.mark.parametrize("unknown", ["", "NaN", "nan", "NA", "n/a", "null", "<NA>", "?", "joy;nan"])
def test_unknown_names_are_refused_dropped_or_taken_as_absent(tmp_path: Path, unknown: str) -> None:
    cells = ["joy", "fear;joy", unknown, "joy", unknown]
    with pytest.raises(
        DataError,
        match=r"t.tsv: 2 of 5 rows have unknown labels, e.g. data row 3, column 'x' is '.*'; leave those "
        r"rows out by labels: \{unknown: drop\}",
    ):
        read(tmp_path, cells)
    values, kept, notes = read(tmp_path, cells, unknown="drop")
    assert kept == [0, 1, 3]
    assert values.select([0, 1, 3]).present.tolist() == [[0, 1], [1, 1], [0, 1]]  # type: ignore[arg-type]
    assert notes[0].startswith("2 of 5 rows have unknown labels, e.g. data row 3, column 'x' is '")
    assert notes[0].endswith(": left out")
    values, kept, notes = read(tmp_path, cells, unknown="absent")
    assert kept == [0, 1, 2, 3, 4]
    assert values.present[4].tolist() == [0, 0]
    assert notes[0].endswith(": taken as absent")


def test_none_and_unknown_are_names(tmp_path: Path) -> None:
    assert read(tmp_path, ["none", "unknown"])[0].names == ["none", "unknown"]


@pytest.mark.parametrize(
    ("cells", "labels", "message"),
    [
        (
            ["joy", "fare"],
            {"names": ["joy", "fear"]},
            "column 'x' is 'fare', which is not among the names joy, fear",
        ),
        (["1", "2"], {"names": ["joy", "fear"]}, "data row 2, column 'x' is '2', which is not among"),
        (["-1", "1"], {"names": ["joy", "fear"]}, "data row 1, column 'x' is '-1', which is not among"),
        (["4", "27"], {}, "column 'x' has numbers, e.g. '27'; say what they mean by labels: {names: …}"),
        (["joy", "Joy", "Joy"], {}, r"'Joy' \(2 times\) and 'joy' \(1 times\); give the names"),
        (["a;b", "a,b"], {}, "has cells with ';' and ',', e.g. 'a;b'; name the one between labels"),
        (
            ["[0, 1, 0, 0]", "[1, 0, 0, 0]"],
            {"names": ["a", "b", "c", "d"]},
            "column 'x': '0 1 0 0' look like zeros",
        ),
        (["[0, 1]", "[1, 0]"], {"names": ["a", "b"]}, "column 'x': '0 1' look like zeros and ones"),
        (
            ["joy/fear", "fear", "joy"],
            {},
            r"'joy/fear' \(1 times\) beside 'joy' and 'fear'; if these are sev",
        ),
        (["joy + fear", "fear", "joy"], {}, "'joy . fear' .* beside 'joy' and 'fear'; if these are several"),
        (["{'joy': 1}", "{'fear': 0}"], {}, "column 'x': '{'joy': 1}' is an object, expected names"),
        ([f"text {i}" for i in range(600)], {}, "has 600 different values; is it a column of labels?"),
        (["", "nan"], {"unknown": "drop", "names": ["a"]}, "no row has a known label"),
        (["joy"], {"names": ["joy", "joy"]}, "labels.names: duplicate name 'joy'"),
        (["joy"], {"names": "no.txt"}, "no.txt: no such file"),
    ],
)
def test_invalid_names_are_refused(
    tmp_path: Path, cells: list[str], labels: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message) as error:
        read(tmp_path, cells, **labels)
    assert "\n" not in str(error.value)


def read_columns(folder: Path, rows: list[str], **labels: Any) -> tuple[LabelValues, list[int], list[str]]:
    (folder / "t.csv").write_text("\n".join(["id,share_joy,share_fear,level_joy", *rows]))
    labels = {"columns": "share_*", **labels}
    values, kept, notes = read_labels(Table(folder / "t.csv"), parse(Labels, labels, "labels"), folder)
    return values, kept.tolist(), notes


def test_columns_by_pattern_are_named_after_the_star(tmp_path: Path) -> None:
    values, _, _ = read_columns(tmp_path, ["a,.2,0,1", "b,0.19,1,1"], rule=">= .2", intensities=True)
    assert values.names == ["joy", "fear"]
    assert values.present.tolist() == [[1, 0], [0, 1]]
    assert values.intensities is not None
    assert values.intensities.tolist() == [[0.2, 0], [0.19, 1]]
    assert read_columns(tmp_path, ["a,1,0,1"], names=["A", "B"])[0].names == ["A", "B"]
    assert read_columns(tmp_path, ["a,1,0,1"], columns=["*_joy"])[0].names == ["share", "level"]


def test_words_in_columns(tmp_path: Path) -> None:
    values, _, _ = read_columns(tmp_path, ["a,True,no,1", "b,FALSE,yes,1", "c,1,0,1"])
    assert values.present.tolist() == [[1, 0], [0, 1], [1, 0]]


@pytest.mark.parametrize("unknown", ["", "NaN", "n/a"])
def test_unknown_numbers(tmp_path: Path, unknown: str) -> None:
    rows = ["a,1,0,1", f"b,1,{unknown},1", "c,0,1,1"]
    with pytest.raises(
        DataError,
        match=f"1 of 3 rows have unknown labels, e.g. data row 2, column 'share_fear' is '{unknown}'",
    ):
        read_columns(tmp_path, rows)
    values, kept, notes = read_columns(tmp_path, rows, unknown="drop", rule="== 0")
    assert kept == [0, 2]
    assert len(notes) == 1
    values, kept, _ = read_columns(tmp_path, rows, unknown="absent", rule="== 0", intensities=True)
    assert values.present.tolist() == [[0, 1], [0, 0], [1, 0]]
    assert values.intensities is not None
    assert values.intensities[1].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"columns": "x_*"}, "no column matches 'x_\\*'; available: id, share_joy"),
        ({"columns": ["share_*", "share_joy"]}, "column 'share_joy' is selected twice"),
        ({"columns": "s*x*y*z*" * 20}, "no column matches"),
        ({"columns": ["id"]}, "column 'id', data row 1: 'a' is not a finite number"),
        ({"names": ["joy"]}, "2 label columns, but 1 names"),
    ],
)
def test_invalid_columns_are_refused(tmp_path: Path, labels: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_columns(tmp_path, ["a,1,0,1"], **labels)
    with pytest.raises(DataError, match="label columns have numbers beyond 3e38"):
        read_columns(tmp_path, ["a,1e300,0,1"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({}, "needs either `columns`, one per label, or `column`"),
        ({"columns": ["a"], "column": "b"}, "needs either `columns`"),
        ({"column": "b", "rule": "> 1"}, "rule has no effect with column"),
        ({"column": "b", "intensities": True}, "intensities has no effect with column"),
        ({"columns": ["a"], "separator": ";"}, "separator has no effect with columns"),
        ({"columns": ["a"], "rule": "> ."}, "'> .' is not a comparison"),
        ({"columns": ["a"], "unknown": "guess"}, "unknown"),
    ],
)
def test_invalid_settings_are_refused(labels: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Labels, labels, "labels")
