"""The README's commands and code run, and what README and docs state about the code holds."""

from __future__ import annotations

import os
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from carat.cli import app
from carat.config.experiment import Experiment, load_experiment
from carat.config.renamed import RENAMED
from carat.data.recipes.recipe import load_recipe
from carat.data.synthetic import make_synthetic
from carat.features.models import is_missing
from carat.utils.version import DISTRIBUTION
from tests.code_blocks import FENCE, PAGES, ROOT, blocks, carat_commands, name_of
from tests.features.fakes import use_fakes, write_clips
from tests.models.encoders.folders import make_text_encoder, write_recipe

README = ROOT / "README.md"


@pytest.mark.parametrize(("page", "command"), carat_commands())
def test_commands_are_understood(page: str, command: str) -> None:
    app.parse_args(shlex.split(command, comments=True)[1:], exit_on_error=False, print_error=False)


def test_there_are_commands() -> None:
    named = {parameters.values[1].split()[1] for parameters in carat_commands()}
    assert named >= {
        "data",
        "train",
        "evaluate",
        "predict",
        "explain",
        "export",
        "compare",
        "ablate",
        "sweep",
    }


def test_the_commands_of_the_readme_run(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every `carat` line of the README, one after the other, with fewer samples and epochs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CARAT_TEXT_ENCODER", str(make_text_encoder(tmp_path / "encoder")))
    write_recipe(tmp_path / "recipes" / "mosei_reduced_text.yaml", tmp_path / "encoder")
    write_clips(tmp_path)
    use_fakes(monkeypatch, tmp_path)
    (recipe,) = [x for x in blocks(ROOT / "docs/tutorials/clips.md", "yaml") if x.title == "clips.yaml"]
    (tmp_path / "clips.yaml").write_text(recipe.text)
    (tmp_path / "clips" / "interview1.mp4").rename(tmp_path / "interview.mp4")
    shorter = {"synth": ["--samples", "150"], "train": ["--training.epochs", "1"]}
    lines = [line for block in blocks(README, "sh") for line in block.commands() if line.startswith("carat ")]
    assert len(lines) >= 8
    for line in lines:
        arguments = shlex.split(os.path.expandvars(line))[1:]
        if "english-text" in arguments and is_missing("all-minilm-l6-v2"):
            continue
        extra = next((more for word, more in shorter.items() if word in arguments), [])
        code, _, err = run(*arguments, *extra)
        assert code == 0, f"{line}: {err}"
    assert (tmp_path / "scores.csv").read_text().startswith("id,labels,score_happy,")


def test_python_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = blocks(README, "python")
    assert '"epochs": 10' in example.text
    monkeypatch.chdir(tmp_path)
    make_synthetic("demo-store", samples=150)
    names: dict[str, Any] = {}
    exec(compile(example.text.replace('"epochs": 10', '"epochs": 1'), "README.md", "exec"), names)
    assert list(names["prediction"].scores) == names["store"].label_names


def test_configuration_reference_is_complete_and_right() -> None:
    (block,) = [b for b in blocks(ROOT / "docs/reference/configuration.md", "yaml") if "preset" in b.text]
    written = yaml.safe_load(block.text)
    assert written.pop("preset") == "paper"
    assert written == Experiment().model_dump()


def test_renamed_keys_are_listed() -> None:
    text = (ROOT / "docs/reference/configuration.md").read_text(encoding="utf-8")
    table = text[text.index("## Renamed keys") :]
    for old, new in RENAMED.items():
        assert old.rpartition(".")[2] in table, old
        assert new.key.rpartition(".")[2] in table, new.key
        assert all(str(value) in table for value in new.values if isinstance(value, str)), new


def test_recipe_reference_is_valid(tmp_path: Path) -> None:
    expected = ["text", "audio"], ["text"], ["text"]
    found = blocks(ROOT / "docs/reference/file_formats.md", "yaml")
    for block, modalities in zip(found, expected, strict=True):
        (tmp_path / "r.yaml").write_text(block.text)
        assert list(load_recipe(tmp_path / "r.yaml").modalities) == modalities


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").glob("*.yaml")), ids=lambda p: p.name)
def test_shipped_recipes_are_valid(recipe: Path) -> None:
    expected = {
        "brighter": ["text"],
        "crema_d_votes": ["voice", "face"],
        "goemotions": ["text"],
        "meld": ["text"],
        "msp_face": ["audio", "visual"],
        "semeval2018": ["text"],
    }
    assert list(load_recipe(recipe).modalities) == expected.get(recipe.stem, ["text", "visual", "audio"])
    if recipe.stem in expected:
        assert len(recipe.read_text().splitlines()) <= 12


def test_file_map_names_what_is_there() -> None:
    (tree,) = [b.text for b in blocks(README, "text") if "src/carat/" in b.text]
    named = {line.split()[0].rstrip("/") for line in tree.splitlines() if line.startswith("  ")}
    there = {
        p.stem if p.is_dir() else p.name
        for p in (ROOT / "src" / "carat").iterdir()
        if not p.name.startswith("_")
    }
    assert named == there
    folders = {line.split()[0].rstrip("/") for line in tree.splitlines() if not line.startswith(" ")}
    assert all((ROOT / folder).is_dir() for folder in folders), folders


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    generated = {ROOT / "docs/reference/cli.md"}
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
        file = (page.parent / target).resolve()
        assert file.exists() or file in generated, f"{name_of(page)}: {target}"


def test_documents_that_the_code_names_exist() -> None:
    files = [
        p
        for folder in ("src", "tests", "benchmarks", "recipes", "results")
        for p in (ROOT / folder).rglob("*.*")
    ]
    for file in files:
        if file.suffix in (".py", ".md", ".yaml", ".html"):
            for page in re.findall(r"\bdocs/[\w/-]+\.md\b", file.read_text(encoding="utf-8")):
                assert (ROOT / page).is_file() or page == "docs/reference/cli.md", f"{name_of(file)}: {page}"


def test_default_experiment_is_the_paper() -> None:
    assert load_experiment(preset="paper") == Experiment()


def test_package_metadata_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["name"] == DISTRIBUTION == "carat-emotion"
    assert str(citation["version"]) == project["version"]
    assert citation["license"] == project["license"]
    assert citation["repository-code"] == project["urls"]["Source"]
    assert all(url.startswith(project["urls"]["Source"]) for url in project["urls"].values())


def test_messages_name_the_distribution() -> None:
    """`pip install` of an extra names `carat-emotion`, and an extra that exists."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = []
    for file in sorted((ROOT / "src").rglob("*.py")):
        found += re.findall(r"pip install '?([\w-]+)\[(\w+)\]", file.read_text(encoding="utf-8"))
    assert len(found) >= 10
    for distribution, extra in found:
        assert distribution == project["name"]
        assert extra in project["optional-dependencies"]
