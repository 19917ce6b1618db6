"""Bounded reading of regular files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from carat.utils.errors import DataError, RunError
from carat.utils.reading import parse_json, read_bytes, read_json, read_text


def test_a_pipe_or_device_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(RunError, match="pipe: is a named pipe, expected a file"):
        read_bytes(pipe, RunError)
    with pytest.raises(DataError, match="/dev/zero: is a device, expected a file"):
        read_bytes(Path("/dev/zero"))
    with pytest.raises(DataError, match="is a folder, expected a file"):
        read_bytes(tmp_path)
    with pytest.raises(DataError, match="no such file"):
        read_bytes(tmp_path / "missing")
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(Path("a" * 5000))
    with pytest.raises(DataError, match="cannot be read"):
        read_bytes(Path("nul\0"))


def test_a_file_beyond_the_limit_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"0123456789")
    assert read_bytes(file, limit=10) == b"0123456789"
    with pytest.raises(DataError, match="larger than"):
        read_bytes(file, limit=9)


def test_text_is_utf8_with_or_without_mark(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes("\ufeffgrün".encode())
    assert read_text(file) == "grün"
    file.write_bytes("grün".encode("latin-1"))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_text(file)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[" * 100_000 + "]" * 100_000, "nested too deeply"),
        ('{"a": ' * 100_000, "nested too deeply"),
        ('{"a": 1, "a": 2}', "duplicate key 'a'"),
        ('{"a": "\\ud800"}', "surrogate"),
        ("1" * 10_000, "not valid JSON"),
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
    ],
)
def test_invalid_json_is_an_error_of_one_line(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "file.json"
    file.write_text(text)
    with pytest.raises(DataError, match=problem) as caught:
        read_json(file)
    assert "\n" not in str(caught.value)


def test_valid_json() -> None:
    assert parse_json('{"a": [1, "\\ud83d\\ude00"]}', "x") == {"a": [1, "😀"]}
