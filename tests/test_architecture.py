"""The layout of the package: twelve rooms at most, imports in one direction, few layers."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "carat"

LAYERS: dict[str, set[str]] = {
    "utils": set(),
    "config": {"utils"},
    "features": {"config", "utils"},
    "data": {"config", "features", "utils"},
    "models": {"config", "utils"},
    "evaluation": {"utils"},
    "runs": {"config", "data", "features", "models", "utils"},
    "training": {"config", "data", "evaluation", "models", "runs", "utils"},
    "inference": {"config", "data", "evaluation", "features", "models", "runs", "utils"},
    "studies": {"config", "data", "evaluation", "inference", "models", "runs", "training", "utils"},
    "serve": {"config", "data", "evaluation", "features", "inference", "runs", "utils"},
    "cli": {
        "config",
        "data",
        "evaluation",
        "features",
        "inference",
        "models",
        "runs",
        "serve",
        "studies",
        "training",
        "utils",
    },
}
"""The rooms that each room may import, besides itself."""

ENTRIES = 14
"""Files and folders at the top level, at most."""
CHAIN = 8
"""Rooms in the longest chain of imports, at most."""
LINES = 400
"""Lines of a file, at most."""

FILES = sorted(SOURCE.rglob("*.py"))


@cache
def imported(file: Path) -> frozenset[str]:
    """Every module that a file imports, at any depth of its code."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            modules |= {f"{module}.{name.name}" for name in node.names} if module == "carat" else {module}
    return frozenset(modules)


def room(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").parts[0]


def rooms_imported(name: str) -> set[str]:
    """The rooms that a room really imports; `carat.__version__` is none."""
    modules = {module for file in FILES if room(file) == name for module in imported(file)}
    return {m.split(".")[1] for m in modules if m.startswith("carat.")} - {name, "__version__"}


def chain(name: str) -> int:
    """Rooms in the longest chain of imports that starts at a room; a circle ends in a RecursionError."""
    return 1 + max((chain(other) for other in rooms_imported(name)), default=0)


def test_top_level_is_small_and_every_room_is_known() -> None:
    entries = {path.name for path in SOURCE.iterdir()} - {"__pycache__"}
    assert len(entries) <= ENTRIES
    assert entries - {"__init__.py", "__main__.py"} == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_imports_go_one_way(name: str) -> None:
    assert rooms_imported(name) <= LAYERS[name]


def test_chains_of_rooms_are_short() -> None:
    assert max(chain(name) for name in LAYERS) <= CHAIN


def test_nothing_imports_the_command_line() -> None:
    assert not any("cli" in rooms_imported(name) for name in LAYERS)


def test_only_the_command_line_imports_the_server() -> None:
    assert [name for name in LAYERS if "serve" in rooms_imported(name)] == ["cli"]


def test_data_and_models_do_not_know_each_other() -> None:
    assert "models" not in rooms_imported("data")
    assert "data" not in rooms_imported("models")


@pytest.mark.parametrize("name", sorted(set(LAYERS) - {"training"}))
def test_only_training_knows_lightning(name: str) -> None:
    for file in FILES:
        if room(file) == name:
            assert not any(m.split(".")[0] in ("lightning", "torchmetrics") for m in imported(file)), file


def test_training_does_not_name_single_methods() -> None:
    for file in FILES:
        if room(file) == "training":
            named = [
                m for m in imported(file) if m.startswith(("carat.models.carat", "carat.models.baselines"))
            ]
            assert not named, file


def test_files_are_not_too_long() -> None:
    long = {
        file.name: n for file in FILES if (n := len(file.read_text(encoding="utf-8").splitlines())) > LINES
    }
    assert not long
