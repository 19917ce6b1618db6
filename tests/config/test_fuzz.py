"""Fuzzing of experiments and recipes: whatever the YAML, a value or a ConfigError of one line.

See `tests.fuzzing` for the number of inputs.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from carat.cli.app import named_method, resolve
from carat.config.experiment import load_experiment
from carat.config.yaml_reading import parse_yaml
from carat.data.recipes.recipe import load_recipe
from carat.utils.errors import ConfigError
from tests.fuzzing import FUZZ, VALUES, attempt, mutated

PIECES = [
    *[
        "!!int",
        "!!float",
        "!!bool",
        "!!timestamp",
        "!!binary",
        "!!set",
        "!!omap",
        "!!map",
        "!!seq",
        "!!pairs",
        "!!null",
        "&a",
        "*a",
    ],
    *["<<", "0x", "1:2:3", "2024-13-01", "[", "]", "{", "}", "x", "=", "~", "_", "''", '"\\ud800"'],
    *(": ", "- ", "? ", ", ", "\n", "\n  ", "%TAG ! x", "---\n", "...\n", "|\n"),
]
"""Pieces of YAML."""
EXPERIMENT: dict[str, Any] = load_experiment().model_dump()
RECIPE: dict[str, Any] = {
    "name": "x",
    "table": "t.csv",
    "id": ["video", "segment"],
    "split": "split",
    "splits": {"train": "a", "valid": "b"},
    "group": "video",
    "transcript": "words",
    "labels": {"columns": ["happy", "sad"], "rule": "> 0", "intensities": True},
    "modalities": {
        "text": {"source": "tokens", "folder": "f", "column": "words", "max_tokens": 9, "context": 3},
        "audio": {"source": "waveform", "folder": "f", "column": "file", "seconds": 3.5},
        "visual": {"source": "array", "file": "a.npz", "column": "key", "values": "v", "keys": "k"},
    },
    "dtype": "float16",
}


def write(file: Path, value: Any) -> Path:
    try:
        file.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    except (UnicodeEncodeError, yaml.YAMLError, ValueError):
        file.write_text("", encoding="utf-8")
    return file


@FUZZ
@given(value=mutated(EXPERIMENT) | VALUES)
def test_experiments(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = write(tmp_path_factory.getbasetemp() / "experiment.yaml", value)
    attempt(load_experiment, file)
    attempt(resolve, file, None, None)
    assert named_method([str(file)])
    if isinstance(value, dict):
        attempt(load_experiment, None, None, value)


@FUZZ
@given(value=mutated(RECIPE) | VALUES)
def test_recipes(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    attempt(load_recipe, write(tmp_path_factory.getbasetemp() / "recipe.yaml", value))


@FUZZ
@given(text=st.text(alphabet=st.sampled_from("ab1.-:,[]{}&*!|>'\"%@#?~<= \n\t\\x0e_\0é\u2028"), max_size=60))
def test_yaml_texts(text: str) -> None:
    attempt(parse_yaml, text, "file.yaml")


@FUZZ
@given(text=st.lists(st.sampled_from(PIECES), max_size=25).map("".join))
def test_yaml_of_tags_and_aliases(text: str) -> None:
    attempt(parse_yaml, text, "file.yaml")


def test_errors_of_the_fuzz_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"training\.epochs: input should be a valid integer"):
        load_experiment(write(tmp_path / "e.yaml", {"training": {"epochs": [1]}}))
