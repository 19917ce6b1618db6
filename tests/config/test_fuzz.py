"""Fuzzing of experiments and recipes: whatever the YAML, a value or a ConfigError of one line.

`CARAT_FUZZ=20000` sets the number of inputs of each test.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carat.cli.app import named_method, resolve
from carat.config.experiment import load_experiment
from carat.config.yaml_reading import parse_yaml
from carat.data.recipes.recipe import load_recipe
from carat.utils.errors import CaratError, ConfigError

MAX_SECONDS = 5
FUZZ = settings(
    max_examples=int(os.environ.get("CARAT_FUZZ", "150")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.sampled_from(
        [
            "carat",
            "mult",
            "small",
            "text",
            "1e400",
            ".inf",
            "../x",
            "${NO_SUCH}",
            "a.b",
            "> 0",
            "train",
            10**30,
        ]
    )
)
KEYS = (
    st.sampled_from(
        [
            "preset",
            "method",
            "name",
            "data",
            "encoders",
            "training",
            "threshold",
            "seed",
            "hidden",
            "layers",
            "encoder",
            "modalities",
            "batch_size",
            "epochs",
            "folder",
            "kind",
            "devices",
            "lora",
            "rank",
            "order",
            "queue",
            "contrast",
            "weights",
            "loss",
            "max_lengths",
            "table",
            "id",
            "split",
            "splits",
            "group",
            "transcript",
            "labels",
            "columns",
            "rule",
            "dtype",
            "source",
            "file",
            "column",
            "values",
            "keys",
            "max_tokens",
            "context",
            "seconds",
            "rate",
            "standardize",
            "train",
            "valid",
            "test",
            "even_start",
            "long",
        ]
    )
    | st.text(max_size=5)
    | st.integers()
    | st.none()
    | st.booleans()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
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


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A valid value with some parts replaced, removed or added."""
    if not isinstance(value, (dict, list)) or draw(st.integers(0, 9)) == 0:
        return draw(VALUES) if draw(st.integers(0, 3)) == 0 else value
    if isinstance(value, list):
        return [draw(mutated(item)) for item in value] + draw(st.lists(VALUES, max_size=1))
    changed = {}
    keys = list(value)
    chosen = draw(st.sets(st.sampled_from(keys), max_size=2)) if keys else set()
    for key in keys:
        if key not in chosen:
            changed[key] = value[key]
        elif draw(st.integers(0, 5)):
            changed[draw(KEYS) if draw(st.integers(0, 9)) == 0 else key] = draw(mutated(value[key]))
    return changed


def write(file: Path, value: Any) -> Path:
    try:
        file.write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")
    except (UnicodeEncodeError, yaml.YAMLError, ValueError):
        file.write_text("", encoding="utf-8")
    return file


def attempt(action: Any, *arguments: Any) -> None:
    """Fail unless the action succeeds in time, or raises a CaratError with a message of one line."""
    started, message = time.monotonic(), ""
    try:
        action(*arguments)
    except CaratError as error:
        message = str(error)
    assert "\n" not in message
    assert time.monotonic() - started < MAX_SECONDS


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
