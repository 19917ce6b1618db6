"""Help texts are complete, and command functions are short."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

import carat.cli
from carat.cli import app
from carat.config.experiment import experiment_with

CLI = Path(carat.cli.__file__).parent
LINES = 50
"""Maximum number of lines of a command function, without its docstring."""
PARAMETERS = 8
"""Maximum number of parameters of a command function, without the experiment."""
EXPERIMENT = {"experiment", "shared"}


def commands(parent: App = app, names: tuple[str, ...] = ()) -> dict[str, App]:
    """All commands by full name, without command groups."""
    by_name: dict[str, App] = {}
    for name in parent:
        child = parent[name]
        if name.startswith("-"):
            continue
        subcommands = commands(child, (*names, name))
        by_name |= subcommands or {" ".join((*names, name)): child}
    return by_name


NAMES = sorted(commands())


def options_of(command: App) -> dict[str, str]:
    """Help texts of the options of a command, by name."""
    arguments = command.assemble_argument_collection(parse_docstring=True)
    return {
        name: argument.parameter.help or ""
        for argument in arguments
        if argument.show
        for name in argument.names
        if name.startswith("--")
    }


def plain_text(text: str) -> str:
    """Join a help page to one line, without frames."""
    return " ".join(re.sub(r"[│╭╮╰╯─]", " ", text).split())


def test_all_commands_are_registered() -> None:
    expected = ["train", "methods", "evaluate", "predict", "explain", "export", "convert"]
    expected += ["ablate", "sweep", "compare", "calibrate", "card", "monitor", "ensemble", "list", "push"]
    expected += ["serve", "threshold"]
    expected += [f"data {name}" for name in ("synth", "build", "merge", "import", "check", "info")]
    expected += [f"models {name}" for name in ("list", "where", "verify", "fetch")]
    assert sorted(expected) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_help_lists_all_options_and_has_examples(name: str) -> None:
    command = [sys.executable, "-m", "carat", *name.split(), "--help"]
    shown = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | {"COLUMNS": "160"}
    )
    assert shown.stderr == ""
    page = plain_text(shown.stdout)
    assert page.startswith(f"Usage: carat {name}")
    examples = page.split("Examples")[1]
    assert f"carat {name}" in examples
    options = options_of(commands()[name])
    assert "--help" not in options
    for option, text in options.items():
        assert option in page, option
        assert text.strip(), f"{option} has no help"


@pytest.mark.parametrize("name", ["train", "ablate", "sweep", "compare"])
def test_experiment_options_are_a_separate_group(run: Any, name: str) -> None:
    out = run(name, "--help")[1]
    own, _, experiment = out.partition("─ Experiment ─")
    assert "--training.epochs INT" in experiment
    assert "--training.epochs INT" not in own
    assert "--data PATH" in own
    assert "--overwrite" in own


def test_related_options_are_grouped(run: Any) -> None:
    out = run("predict", "--help")[1]
    groups = re.split(r"╭─ ([^─]+) ─", out)
    by_name = dict(zip(groups[1::2], groups[2::2], strict=True))
    assert "--conversation" in by_name["Texts"]
    assert "--file" in by_name["What to score"]
    assert "--engine" in by_name["Folder of predictions"]
    assert "--out" in by_name["Parameters"]


def test_help_shows_the_options_of_the_given_method(run: Any) -> None:
    out = run("train", "--method", "mult", "--help")[1]
    assert "--method.hidden" in out
    assert "--method.latent" not in out
    keys = set(experiment_with("mult").model_fields["method"].annotation.model_fields)  # type: ignore[union-attr]
    assert all(f"--method.{key.replace('_', '-')}" in out for key in keys)


def command_functions() -> dict[str, ast.FunctionDef]:
    """Functions decorated with `@app.command`, `@data.command` or `@models.command`, by file and name."""
    functions = {}
    for file in CLI.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(
                re.fullmatch(r"(app|data|models)\.command(\(.*\))?", ast.unparse(x))
                for x in node.decorator_list
            ):
                functions[f"{file.stem}:{node.name}"] = node
    return functions


def test_each_command_has_one_function() -> None:
    names = [name.split(":")[1].rstrip("_") for name in command_functions()]
    assert sorted(names) == sorted(x.split()[-1] for x in NAMES)


@pytest.mark.parametrize("name", sorted(command_functions()))
def test_command_functions_are_short(name: str) -> None:
    function = command_functions()[name]
    first = function.body[0]
    assert isinstance(first, ast.Expr), "no docstring"
    documented = (first.end_lineno or 0) - first.lineno + 1
    lines = (function.end_lineno or 0) - function.lineno + 1 - documented
    assert lines <= LINES
    arguments = function.args
    names = {x.arg for x in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    assert len(names - EXPERIMENT) <= PARAMETERS
