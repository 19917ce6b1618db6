"""Files that were damaged on the way, or are something else, are named as such; hostile ones end in time."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carat.data.corpora.registry import FORMATS, Sources, import_data
from carat.data.pickled.reading import MAX_DEPTH, flatten_runs, identifier, read_pickle, text, to_array
from carat.utils.errors import DataError
from carat.utils.reading import check_content
from tests.data import field_files as files

DAMAGED = "damaged by a transfer in text mode; transfer it again in binary mode"
DATA = {"ids": ["a_1", "b_2"], "x": np.arange(12.0).reshape(3, 4), "n": [1, 2.5, None], "t": "ü\nü"}


@pytest.mark.parametrize("protocol", range(6))
def test_crlf_damage_is_named(tmp_path: Path, protocol: int) -> None:
    content = pickle.dumps(DATA, protocol=protocol)
    content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(DataError, match=DAMAGED) as error:
        read_pickle(tmp_path / "x.pkl")
    assert "each line feed follows a carriage return" in str(error.value)


def test_crlf_damage_of_text_alone(tmp_path: Path) -> None:
    """A pickle without memo lines, whose only lines are the texts, which would get a carriage return."""
    (tmp_path / "x.pkl").write_bytes(b"(lVa_1\r\naVb_2\r\na.")
    with pytest.raises(DataError, match=DAMAGED):
        read_pickle(tmp_path / "x.pkl")
    (tmp_path / "x.pkl").write_bytes(b"(lVa_1\r\naVb_2\na.")  # a text that ends in a carriage return
    assert read_pickle(tmp_path / "x.pkl") == ["a_1\r", "b_2"]


@pytest.mark.parametrize("protocol", range(6))
def test_carriage_returns_in_texts_are_no_damage(tmp_path: Path, protocol: int) -> None:
    value = {"a": "line\r\n", "b": ["x\r", "\r\n"], "c": b"\r\n"}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(value, protocol=protocol))
    assert read_pickle(tmp_path / "x.pkl") == value


@pytest.mark.parametrize("decode", ["replace", "latin-1"])
def test_conversion_to_utf_8_is_named(tmp_path: Path, decode: str) -> None:
    content = pickle.dumps(DATA, protocol=4)
    damaged = content.decode("latin-1") if decode == "latin-1" else content.decode(errors=decode)
    (tmp_path / "x.pkl").write_text(damaged, encoding="utf-8", newline="")
    with pytest.raises(DataError, match=f"its bytes were converted to UTF-8: {DAMAGED}"):
        read_pickle(tmp_path / "x.pkl")


def test_damaged_field_file_gives_no_store(tmp_path: Path) -> None:
    files.m3ed(tmp_path / "m.pkl", protocol=0)
    (tmp_path / "m.pkl").write_bytes((tmp_path / "m.pkl").read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match=DAMAGED):
        import_data("m3ed", tmp_path / "m.pkl", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pkl"]


PLACEHOLDERS: dict[bytes, str] = {
    b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a": "a Git LFS pointer, .*: run git lfs pull",
    b"/annex/objects/MD5E-s1--abc.pkl\n": "a git-annex pointer",
    b"../.git/annex/objects/aa/bb/MD5E-s1--abc.pkl": "a git-annex pointer",
    b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning": "a web page, not the file",
    b"\xef\xbb\xbf \n<HTML>": "a web page",
    b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0">': "a web page",
    b"<!-- saved from url --><html lang='en'>": "a web page",
    b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code>': "the error message of a server",
}  # fmt: skip


@pytest.mark.parametrize("content", PLACEHOLDERS)
def test_placeholders_are_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.pkl"
    file.write_bytes(content)
    for read in (check_content, read_pickle):
        with pytest.raises(DataError, match=rf"x\.pkl: is {PLACEHOLDERS[content]}"):
            read(file)
    labels = tmp_path / "labels.csv"
    files.table(labels)
    for format, spec in FORMATS.items():
        if spec.has_file:
            given = Sources(labels=labels if "labels" in spec.required else None)
            with pytest.raises(DataError, match=rf"x\.pkl: is {PLACEHOLDERS[content]}"):
                import_data(format, file, tmp_path / "store", given)


def test_other_content_is_accepted(tmp_path: Path) -> None:
    for content in (b"", b"version 1\n", b"<p>html</p>", b"\x80\x02N.", b"id,text\n1,<html>\n", bytes(5000)):
        (tmp_path / "x").write_bytes(content)
        check_content(tmp_path / "x")


@pytest.mark.parametrize("format", [name for name, spec in FORMATS.items() if spec.has_file])
def test_pipes_devices_and_folders_are_refused(tmp_path: Path, format: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    labels = tmp_path / "labels.csv"
    files.table(labels)
    needs_labels = "labels" in FORMATS[format].required
    for file, message in (
        (tmp_path / "pipe", "is a named pipe"),
        (Path("/dev/zero"), "is a device"),
        (tmp_path / "folder", "is a folder"),
    ):
        with pytest.raises(DataError, match=f"{file}: {message}, expected a file"):
            import_data(format, file, tmp_path / "store", Sources(labels=labels if needs_labels else None))
        if needs_labels:
            files.unaligned(tmp_path / "f.pkl") if format == "mosei-unaligned" else files.mmsa(
                tmp_path / "f.pkl"
            )
            with pytest.raises(DataError, match=f"{file}: {message}, expected a file"):
                import_data(format, tmp_path / "f.pkl", tmp_path / "store", Sources(labels=file))


def nested(depth: int) -> list[Any]:
    value: list[Any] = [1.0]
    for _ in range(depth):
        value = [value]
    return value


def repeated(levels: int, leaf: Any) -> list[Any]:
    """Lists that contain the same list a thousand times, whose pickle is small."""
    value = leaf
    for _ in range(levels):
        value = [value] * 1000
    return [value]


def cyclic() -> list[Any]:
    value: list[Any] = [1]
    value.append(value)
    return value


HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "deep": (lambda: nested(100), "lists nested deeper than"),
    "cyclic": (cyclic, "lists nested deeper than"),
    "repeated": (lambda: repeated(4, [0.5]), "lists of more than 134217728 values"),
    "repeated and empty": (lambda: repeated(6, []), "lists of more than 134217728 values"),
    "ragged": (lambda: [[1, 2], [3]], "2 parts whose shapes differ"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_lists(tmp_path: Path, name: str) -> None:
    make, message = HOSTILE[name]
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(make(), protocol=4))
    value = read_pickle(tmp_path / "x.pkl")
    started = time.monotonic()
    with pytest.raises(DataError, match=message):
        to_array(value, "x")
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("name", ["deep", "cyclic", "repeated", "repeated and empty"])
@pytest.mark.parametrize("position", range(1, 7))
def test_hostile_parts_of_dialogues(tmp_path: Path, name: str, position: int) -> None:
    parts = list(files.dialogue_layout("DialogueRNN iemocap"))
    parts[position] = {**parts[position], "A_1": HOSTILE[name][0]()}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(tuple(parts), protocol=4))
    started = time.monotonic()
    for format in ("erc", "m3ed"):
        with pytest.raises(DataError):
            import_data(format, tmp_path / "x.pkl", tmp_path / "store")
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_very_deep_lists_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + b"]" * 500_000 + b"a" * 499_999 + b".")
    value = read_pickle(tmp_path / "x.pkl")
    with pytest.raises(DataError, match="lists nested deeper than"):
        to_array(value, "x")
    for format in ("erc", "mosei-aligned"):
        with pytest.raises(DataError):
            import_data(format, tmp_path / "x.pkl", tmp_path / "store")


def test_expanded_tensors_are_refused(tmp_path: Path) -> None:
    torch.save({"x": torch.zeros(1).expand(100_000, 500, 300)}, tmp_path / "x.pt")
    with pytest.raises(DataError, match=r"a tensor of shape \(100000, 500, 300\) in a storage of 1 elements"):
        read_pickle(tmp_path / "x.pt")
    torch.save({"x": torch.arange(5.0).expand(3, 5)}, tmp_path / "x.pt")
    assert read_pickle(tmp_path / "x.pt")["x"].tolist() == [[0, 1, 2, 3, 4]] * 3


def test_a_file_that_repeats_its_features_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from carat.data.corpora import registry

    monkeypatch.setattr(registry, "BASE_SIZE", 1 << 10)
    files.aligned(tmp_path / "t.pt")
    whole = torch.load(tmp_path / "t.pt", weights_only=False)
    import_data("mosei-aligned", tmp_path / "t.pt", tmp_path / "fine")
    for part in whole.values():
        for key in ("src-text", "src-audio", "src-visual"):
            part[key] = [part[key][0] + 1] * (len(part[key]) * 100)
        part["tgt"] = part["tgt"] * 100
    (tmp_path / "r.pkl").write_bytes(pickle.dumps(whole))
    with pytest.raises(
        DataError, match=r"r\.pkl: its features take more than .* 16 times the size of the file"
    ):
        import_data("mosei-aligned", tmp_path / "r.pkl", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_texts(tmp_path: Path) -> None:
    assert text("\ud83d\ude00", "x") == "😀"
    assert text(np.int64(7), "x") == "7"
    with pytest.raises(DataError, match="x: half of a surrogate pair in a text"):
        text("a\ud800", "x")
    with pytest.raises(DataError, match="x: expected text, found float"):
        text(1.5, "x")
    assert identifier("Ses01F_impro01 (ü)", "x") == "Ses01F_impro01 (ü)"
    for value, message in (
        ("", "invalid ID ''"),
        ("a\nb", r"invalid ID 'a\?b'"),
        ("a\x1b[31m", "invalid ID"),
        ("a\r", DAMAGED),
    ):
        with pytest.raises(DataError, match=message):
            identifier(value, "x")


def test_runs_of_floats_are_flattened(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([0.5 * i for i in range(50)]))
    value = read_pickle(tmp_path / "x.pkl")
    assert len(value) < 50
    assert flatten_runs(value, "x").tolist() == [0.5 * i for i in range(50)]
    assert flatten_runs(["a"], "x") == ["a"]
    assert MAX_DEPTH >= 4
