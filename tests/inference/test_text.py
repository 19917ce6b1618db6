"""Prediction of texts: files, tokenization, word attribution, command line."""

from __future__ import annotations

import csv
import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import carat
from carat.data.store import Store
from carat.data.tables.format import TableFormat
from carat.inference.text import occlude_words, rank_words
from carat.inference.text_files import Columns, Text, TextFile, read_texts
from carat.training.train import TrainedRun
from carat.utils.errors import DataError, RunError
from tests.models.encoders.conftest import text_encoder, text_run, text_store

__all__ = ["text_encoder", "text_run", "text_store"]  # fixtures


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "so glad\n\n  tears \n", [("1", "so glad"), ("2", ""), ("3", "tears")]),
        ("a.csv", 'text,x\n"so, glad",1\n,2\nfun,3\n', [("1", "so, glad"), ("2", ""), ("3", "fun")]),
        ("a.tsv", "id\ttext\nq\tso glad\n", [("q", "so glad")]),
        (
            "a.jsonl",
            '{"text": "so glad", "id": 7}\n\n{"text": null}\n{"text": "fun"}\n',
            [("7", "so glad"), ("3", ""), ("4", "fun")],
        ),
    ],
)
def test_text_files_are_read(
    name: str, content: str, expected: list[tuple[str, str]], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    assert list(read_texts(tmp_path / name, Columns("text"))) == [Text(*x) for x in expected]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "text,call,turn\nso,x,2\nglad,,1.5\n"),
        ("a.jsonl", '{"text": "so", "call": "x", "turn": 2}\n{"text": "glad", "turn": "1.5"}\n'),
    ],
)
def test_conversations_are_read(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    texts = list(read_texts(tmp_path / name, Columns("text", "call", "turn")))
    assert texts == [Text("1", "so", "x", 2.0), Text("2", "glad", "", 1.5)]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text,call,turn\nso,x,2\nglad,x,\n", "data row 2: expected a finite number, found ''"),
        ("a.csv", "text,call,turn\nso,x,nan\n", "data row 1: expected a finite number, found 'nan'"),
        (
            "a.csv",
            "text,call,turns\nso,x,1\n",
            "no column 'turn'; did you mean 'turns'.; select another with --order",
        ),
        ("a.jsonl", '{"text": "so", "call": "x"}\n', "line 1: expected a finite number, found ''"),
        (
            "a.jsonl",
            '{"text": "so", "turn": 1}\n',
            "no line has the key 'call'; select another with --conversation",
        ),
        ("a.txt", "so\n", "a .txt file has no column 'call'; use .csv, .tsv or .jsonl"),
    ],
)
def test_invalid_conversations_are_rejected(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        list(read_texts(tmp_path / name, Columns("text", "call", "turn")))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.doc", b"", "unknown ending '.doc'; use .txt, .csv, .tsv, .jsonl"),
        ("a.txt", b"\xff\xfe\xfa", "a.txt, line 1: not text in utf-16"),
        ("a.csv", b"texts,x\n", "no column 'text'; did you mean 'texts'.; select another with --column"),
        ("a.jsonl", b'{"text": 1}', "line 1: no text under key 'text'; select another with --column"),
        ("a.jsonl", b'{"text": "a"}\n{', "line 2: not valid JSON"),
        ("a.jsonl", b"[]", "line 1: expected a JSON object"),
        ("a.txt", b" \n\n", "a.txt: no texts, or only empty ones"),
        ("a.csv", b"text\n", "a.csv: no texts, or only empty ones"),
    ],
)
def test_invalid_text_files_are_rejected(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(read_texts(tmp_path / name, Columns("text")))
    with pytest.raises(DataError, match=r"none.txt: no such file"):
        list(read_texts(tmp_path / "none.txt", Columns("text")))


SWALLOWED = "id,text,call\n" + "".join(
    f"u{i},{text},x\n" for i, text in enumerate(["so", '"he said', "glad", "well", 'bye"', "yes", "no"])
)


def test_rows_in_are_texts_out(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(SWALLOWED)
    with pytest.raises(DataError, match=r"a.csv, line 3: .*; if quotes are ordinary .*, set quote: none"):
        list(read_texts(tmp_path / "a.csv", Columns("text")))
    texts = list(read_texts(tmp_path / "a.csv", Columns("text"), TableFormat(quote="none")))
    assert [x.id for x in texts] == [f"u{i}" for i in range(7)]
    assert texts[1].text == '"he said'
    (tmp_path / "a.tsv").write_text(SWALLOWED.replace(",", "\t"))
    source = TextFile(tmp_path / "a.tsv", Columns("text"))
    assert [x.text for x in source] == [x.text for x in texts]
    assert "quotes are read as ordinary characters" in source.notes[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"id,text\n1,so,glad\n", "line 2: data row 1 has 3 cells, but the header has 2"),
        ("a.csv", b"id,text\n1\n", "line 2: data row 1 has 1 cell, but the header has 2"),
        ("a.csv", b"text,text\nso,glad\n", "columns 1 and 2 are both named 'text'"),
        ("a.csv", b"text\nso\0\n", "line 2: contains a NUL byte"),
        ("a.txt", b"so\nglad\0\n", "line 2: contains a NUL byte"),
        (
            "a.jsonl",
            b'{"text": "so"}\n{"text": "\\udc00"}',
            r"line 2: not valid JSON \(half of a surrogate pair",
        ),
        ("a.jsonl", b'{"text": ' + b"[" * 100_000, "line 1: not valid JSON .nested too deeply"),
        ("a.jsonl", b'{"text": "a", "text": "b"}', "line 1: not valid JSON .duplicate key 'text'"),
        ("a.txt", b"x" * (9 << 20), "line 1: longer than 4 MB"),
        ("a.jsonl", b'{"text": "' + b"x" * (9 << 20), "line 1: longer than 4 MB"),
        ("a.xlsx", b"", "unknown ending '.xlsx'; use .txt, .csv, .tsv, .jsonl"),
    ],
)
def test_damaged_text_files_are_rejected(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as error:
        list(read_texts(tmp_path / name, Columns("text")))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("order", ["1" * 400, "1e999"])
def test_huge_orders_are_rejected(tmp_path: Path, order: str) -> None:
    (tmp_path / "a.jsonl").write_text(f'{{"text": "so", "call": "x", "turn": {order}}}')
    with pytest.raises(DataError, match=r"line 1: expected a finite number, found '(1+…1+|inf)'"):
        list(read_texts(tmp_path / "a.jsonl", Columns("text", "call", "turn")))


def test_encodings_compression_and_line_ends_of_text_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress("naïve\rdon’t\r".encode("cp1252")))
    source = TextFile(tmp_path / "a.txt.gz", Columns("text"))
    assert [x.text for x in source] == ["naïve", "don’t"]
    assert "read as cp1252" in source.notes[0]
    (tmp_path / "a.csv").write_bytes("text;id\r\n今天很高兴;a\r\n".encode("utf-16"))
    assert list(read_texts(tmp_path / "a.csv", Columns("text"))) == [Text("a", "今天很高兴")]


def test_words_are_left_out_one_by_one() -> None:
    assert occlude_words(" so  very glad") == [
        ("so", "very glad"),
        ("very", "so  glad"),
        ("glad", "so  very"),
    ]
    assert occlude_words("") == []


def test_words_are_ranked_by_drop() -> None:
    drops = np.array([0.1, -0.2, 0.3, 0.0])
    assert rank_words(["so", "not", "(glad),", "a"], drops, 3) == ["glad", "so"]
    assert rank_words(["so"], np.array([0.004]), 1) == []
    assert occlude_words("so — glad") == [("so", "— glad"), ("glad", "so —")]


def test_scores_of_texts_equal_those_of_their_store(text_run: TrainedRun, text_store: Store) -> None:
    predictor = carat.load(text_run.folder)
    expected = dict(predictor.predict_store(text_store, "test"))
    rows = {text_store.ids[row]: row for row in text_store.indices("test")}
    texts = [text_store.transcript(rows[id]) for id in expected]
    for prediction, stored in zip(predictor.predict_text(texts), expected.values(), strict=True):
        assert prediction.labels == stored.labels
        assert prediction.scores == pytest.approx(stored.scores, abs=1e-6)
        assert prediction.words == {}
    assert [x.text for x in predictor.predict_text(texts)] == texts


def test_long_texts_are_truncated(text_run: TrainedRun) -> None:
    predictor = carat.load(text_run.folder)
    long, full, short = predictor.predict_text(["so " * 50, "so " * 11, "so"])  # and two special tokens
    assert long.scores == full.scores != short.scores
    assert predictor.reader.truncated == 2


def test_labels_are_attributed_to_words(text_run: TrainedRun) -> None:
    glad, alone = carat.load(text_run.folder).predict_text(["We are so glad here", "tears"], words=2)
    assert glad.labels == ["happy"]
    assert glad.words["happy"][0] == "glad"
    assert all(len(words) <= 2 for words in glad.words.values())
    assert alone.words["sad"] == ["tears"]


def test_invalid_texts_and_runs_are_rejected(text_run: TrainedRun, trained: TrainedRun) -> None:
    with pytest.raises(
        RunError, match="trained on features, so it cannot read texts; train on a store whose"
    ):
        carat.load(trained.folder).predict_text(["glad"])
    with pytest.raises(DataError, match="text 2 of 2: expected a non-empty string, found ' '"):
        carat.load(text_run.folder).predict_text(["glad", " "])
    with pytest.raises(DataError, match="text 1 of 1: expected a non-empty string, found 3"):
        carat.load(text_run.folder).predict_text([3])  # type: ignore[list-item]
    with pytest.raises(DataError, match="words must not be negative, found -1"):
        carat.load(text_run.folder).predict_text(["glad"], words=-1)
    assert carat.load(text_run.folder).predict_text([]) == []
    assert carat.load(text_run.folder).predict_text("so glad")[0].text == "so glad"


def test_token_ids_are_scored_and_validated(text_run: TrainedRun) -> None:
    predictor = carat.load(text_run.folder)
    ids = np.array([[2], [17], [3]])
    assert predictor.predict({"text": ids}).scores == pytest.approx(
        predictor.predict_text(["glad"])[0].scores
    )
    for wrong in (ids + 0.5, ids + 99, -ids):
        with pytest.raises(DataError, match=r"sample 0, text: expected token IDs from 0 to 22"):
            predictor.predict({"text": wrong})


def test_command_line_with_texts(run, text_run: TrainedRun) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run("predict", text_run.folder, "--text", "We are so glad", "such tears")
    assert code == 0
    assert "We are so glad" in out
    (line,) = [x for x in out.splitlines() if "happy" in x and "*" in x]
    assert "glad" in line


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_command_line_with_files(run, ending: str, text_run: TrainedRun, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in.csv").write_text("id,utterance\na,so glad\nb,\nc,I hate tears\n")
    out = tmp_path / f"out.{ending}"
    settings = ("--file", tmp_path / "in.csv", "--column", "utterance", "--words", 1, "--out", out)
    code, _, err = run("predict", text_run.folder, *settings)
    assert code == 0, err
    assert "2 predictions → " in err
    rows = {
        "csv": lambda: list(csv.DictReader(out.read_text().splitlines())),
        "jsonl": lambda: [json.loads(x) for x in out.read_text().splitlines()],
        "parquet": lambda: pq.read_table(out).to_pylist(),
    }[ending]()
    assert [(x["id"], x["text"]) for x in rows] == [("a", "so glad"), ("c", "I hate tears")]
    assert rows[0]["words_happy"] in ("glad", ["glad"])
    assert set(rows[1]["labels"].split(";") if ending == "csv" else rows[1]["labels"]) == {"sad", "anger"}


def test_command_line_with_unquoted_files(run, text_run: TrainedRun, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "in.csv").write_text(SWALLOWED)
    settings = ("predict", text_run.folder, "--file", tmp_path / "in.csv", "--out", tmp_path / "out.csv")
    code, _, err = run(*settings)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "set quote: none (--quote none)" in err
    code, _, err = run(*settings, "--quote", "none")
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["id"] for row in rows] == [f"u{i}" for i in range(7)]
    code, _, err = run(*settings, "--overwrite", "--encoding", "utf-9")
    assert code == 2
    assert "'utf-9' is not the name of an encoding" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of --data, --text, --file and --clip"),
        (("--text", "a", "--file", "b.txt"), "one of --data, --text, --file and --clip"),
        (("--file", "b.txt"), "--file needs --out"),
        (("--data", "store"), "--data needs --out"),
        (("--file", "b.txt", "--out", "x.csv"), "b.txt: no such file"),
        (("--text",), "--text needs a text"),
        (("--text", " "), "text 1 of 1: expected a non-empty string, found ' '"),
        (("--text", "a", "--split", "test"), "--split, --raw and --engine are for --data"),
    ],
)
def test_invalid_arguments_are_one_line_errors(run, arguments, message: str, text_run: TrainedRun) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("predict", text_run.folder, *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_order_of_texts_is_kept(
    run, text_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("carat.cli.predict_text.CHUNK", 7)
    lines = [" ".join(["so"] * (1 + i % 5) + [["glad", "tears"][i % 2]]) for i in range(30)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    code, _, _ = run(
        "predict", text_run.folder, "--file", tmp_path / "lines.txt", "--out", tmp_path / "o.csv"
    )
    assert code == 0
    rows = list(csv.DictReader((tmp_path / "o.csv").read_text().splitlines()))
    assert [row["text"] for row in rows] == lines
    assert [row["id"] for row in rows] == [str(i) for i in range(1, 31)]
    assert [float(row["score_happy"]) > float(row["score_sad"]) for row in rows] == [True, False] * 15


def test_run_folder_can_be_moved(text_run: TrainedRun, tmp_path: Path) -> None:
    moved = shutil.copytree(text_run.folder, tmp_path / "moved")
    assert carat.load(moved).predict_text(["so glad"])[0].labels == ["happy"]
