from __future__ import annotations

import pytest

from carat.errors import ConfigError
from carat.sections import expand, merge


def test_merge_leaves_its_arguments_alone() -> None:
    below = {"a": {"b": 1}}
    assert merge(below, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert below == {"a": {"b": 1}}


def test_expand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAT_X", "there")
    assert expand("${CARAT_X}/a ${CARAT_X:-no}") == "there/a there"
    monkeypatch.delenv("CARAT_X")
    with pytest.raises(ConfigError, match="needs the environment variable CARAT_X"):
        expand("${CARAT_X}")
