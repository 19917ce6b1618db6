"""Merging, environment variables, and safe YAML reading."""

from __future__ import annotations

from pathlib import Path

import pytest

from carat.config.base import expand, merge, read_yaml
from carat.utils.errors import ConfigError


def test_merge_does_not_change_its_arguments() -> None:
    base = {"a": {"b": 1}}
    assert merge(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}


def test_expand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAT_X", "value")
    assert expand("${CARAT_X}/a ${CARAT_X:-no}") == "value/a value"
    monkeypatch.delenv("CARAT_X")
    with pytest.raises(ConfigError, match="requires the environment variable CARAT_X"):
        expand("${CARAT_X}")


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch HACKED']",
        "a: !!python/object/new:os.system ['touch HACKED']",
        "a: !!python/name:os.system",
        "a: !!python/module:os",
    ],
)
def test_yaml_with_python_tags_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(ConfigError, match="not valid YAML") as refused:
        read_yaml(tmp_path / "r.yaml")
    assert "\n" not in str(refused.value)
    assert [path.name for path in tmp_path.iterdir()] == ["r.yaml"]
