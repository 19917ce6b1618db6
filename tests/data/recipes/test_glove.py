from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from carat.data.recipes.sources.glove import GloveSource, tokenize
from carat.utils.errors import DataError


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("Don't!", ["do", "n't", "!"]),
        ("It’s (umm) 20%", ["it", "'s", "(", "umm", ")", "20", "%"]),
        ("", []),
        ("Café 你好", ["café", "你好"]),
    ],
)
def test_tokens(text: str, tokens: list[str]) -> None:
    assert tokenize(text) == tokens


def test_word2vec_header(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("2 3\nno 1 2 3\nso 4 5 6\n")
    (features,) = GloveSource(tmp_path / "g.txt").read(["so"])
    assert features is not None
    assert features.tolist() == [[4, 5, 6]]


def test_text_file_and_npz_agree(tmp_path: Path) -> None:
    (tmp_path / "g.txt").write_text("no 1 2\n. . . 3 4\nno 9 9\n")
    np.savez(tmp_path / "g.npz", words=np.array(["no", ". . ."]), vectors=[[1.0, 2], [3, 4]])
    for name in ("g.txt", "g.npz"):
        source = GloveSource(tmp_path / name)
        (features,) = source.read(["no way"])
        assert features is not None
        assert features.tolist() == [[1, 2], [0, 0]]
        assert source.id.startswith("glove:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no 1 x\n", "line 1: expected a word and a vector of numbers"),
        ("", "contains no word vectors"),
        ("a 1 2\nb 1\n", "line 2: 1 numbers, expected 2"),
    ],
)
def test_broken_text_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "g.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        GloveSource(tmp_path / "g.txt")


def test_files_that_hold_no_vectors(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("id,text\n1,good\n")
    with pytest.raises(DataError, match="line 1: expected a word and its vector, separated by spaces"):
        GloveSource(tmp_path / "table.csv")
    np.savez(tmp_path / "a.npz", words=["a"], vectors=np.array({"a": 1}, dtype=object))
    with pytest.raises(DataError, match=r"a.npz: expected vectors \(V, d\), found \(\)"):
        GloveSource(tmp_path / "a.npz")
