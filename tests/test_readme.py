"""What README and docs say, works."""

from __future__ import annotations

import os
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.cli import app
from carat.config.experiment import Experiment, load_experiment
from carat.data.recipes.recipe import load_recipe
from carat.data.synthetic import make_synthetic
from tests.models.encoders.folders import make_text_encoder, write_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def lines(page: Path, language: str) -> list[str]:
    """`carat` lines, those that end in a backslash with what follows."""
    found = [line for x in blocks(page, language) for line in x.replace("\\\n", " ").splitlines()]
    return [line.partition("  #")[0].strip() for line in found if line.startswith("carat ")]


def commands() -> list[str]:
    return [line for page in PAGES for line in lines(page, "(?:sh)?")]


@pytest.mark.parametrize("command", commands())
def test_commands_are_understood(command: str) -> None:
    app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)


def test_the_way_in_the_readme_works(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every `carat` line of the README, one after the other, with fewer samples and epochs."""
    monkeypatch.chdir(tmp_path)
    np.savez("clip.npz", text=np.ones((7, 24)), audio=np.ones((11, 20)))
    Path("lines.txt").write_text("so glad\nsuch tears\n")
    monkeypatch.setenv("CARAT_TEXT_ENCODER", str(make_text_encoder(tmp_path / "encoder")))
    write_recipe(tmp_path / "recipes" / "mosei_reduced_text.yaml", tmp_path / "encoder")
    shorter = {"synth": ["--samples", "150"], "train": ["--training.epochs", "1"]}
    called = [shlex.split(os.path.expandvars(line))[1:] for line in lines(ROOT / "README.md", "sh")]
    assert len(called) >= 10
    for arguments in called:
        extra = next((more for word, more in shorter.items() if word in arguments), [])
        if "--training.epochs" in arguments:
            extra = []
        code, _, err = run(*arguments, *extra)
        assert code == 0, f"{arguments}: {err}"
    assert {"scores.csv", "scores.jsonl"} <= {path.name for path in tmp_path.iterdir()}


def test_there_are_commands() -> None:
    assert {command.split()[1] for command in commands()} >= {"data", "train", "evaluate", "predict"}


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks(ROOT / "README.md", "python")
    assert '"epochs": 10' in example
    monkeypatch.chdir(tmp_path)
    make_synthetic("demo-store", samples=150)
    names: dict[str, Any] = {}
    exec(compile(example.replace('"epochs": 10', '"epochs": 1'), "README.md", "exec"), names)
    assert list(names["prediction"].scores) == names["store"].label_names


def test_experiment_reference_is_complete_and_right() -> None:
    (text,) = [b for b in blocks(ROOT / "docs" / "experiments.md", "yaml") if "preset" in b]
    written = yaml.safe_load(text)
    assert written.pop("preset") == "paper"
    assert written == Experiment().model_dump()


def test_recipe_reference_is_valid(tmp_path: Path) -> None:
    wanted = ["text", "audio"], ["text"]
    for text, modalities in zip(blocks(ROOT / "docs" / "data.md", "yaml"), wanted, strict=True):
        (tmp_path / "r.yaml").write_text(text)
        assert list(load_recipe(tmp_path / "r.yaml").modalities) == modalities


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_recipes_are_valid(recipe: Path) -> None:
    assert list(load_recipe(recipe).modalities) == ["text", "visual", "audio"]


def test_file_map_names_what_is_there() -> None:
    (tree,) = [b for b in blocks(ROOT / "README.md", "text") if "src/carat/" in b]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    there = {
        p.stem if p.is_dir() else p.name
        for p in (ROOT / "src" / "carat").iterdir()
        if not p.name.startswith("_") and p.name != "py.typed"
    }
    assert named == there


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_default_experiment_is_the_paper() -> None:
    assert load_experiment(preset="paper") == Experiment()
