"""Imports go one way."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[1] / "src" / "carat"
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "progress": set(),
    "sections": {"errors"},
    "carat_config": {"sections"},
    "peer_configs": {"carat_config", "sections"},
    "encoder_configs": {"sections"},
    "config": {"carat_config", "encoder_configs", "errors", "peer_configs", "sections"},
    "hugging_face": {"errors"},
    "context": {"errors", "hugging_face"},
    "hiding": set(),
    "memory": set(),
    "children": set(),
    "locking": {"errors"},
    "engines": {"children", "errors"},
    "data": {"context", "errors", "hugging_face", "progress", "sections"},
    "host": set(),
    "model": {"host"},
    "objective": {"host"},
    "methods": {"carat_config", "errors", "model", "objective"},
    "peers": {"errors", "hiding", "host", "methods", "model", "objective", "peer_configs"},
    "encoders": {"encoder_configs", "errors", "hugging_face", "host", "methods", "model"},
    "evaluation": {"errors", "pictures"},
    "pictures": set(),
    "explain": {"data", "errors", "evaluation", "pictures", "predictor", "run", "context"},
    "run": {"config", "data", "encoder_configs", "errors", "locking", "sections"},
    "samples": {"data", "errors", "run"},
    "texts": {"context", "encoder_configs", "errors", "run"},
    "text_files": {"errors"},
    "campaign": {
        "children",
        "config",
        "data",
        "errors",
        "evaluation",
        "locking",
        "memory",
        "predictor",
        "run",
        "sections",
        "training",
    },
    "sweep": {"campaign", "config", "data", "engines", "errors", "run", "sections", "training"},
    "ablation": {"campaign", "carat_config", "config", "data", "errors", "evaluation", "run", "sections"},
    "compare": {
        "campaign",
        "config",
        "data",
        "errors",
        "evaluation",
        "hiding",
        "peer_configs",
        "pictures",
        "predictor",
        "run",
        "sections",
        "sweep",
    },
    "convert": {"carat_config", "config", "errors", "methods", "model", "run", "sections"},
    "training": {
        "children",
        "config",
        "data",
        "encoders",
        "errors",
        "evaluation",
        "hiding",
        "host",
        "locking",
        "memory",
        "methods",
        "run",
    },
    "predictor": {
        "config",
        "data",
        "encoder_configs",
        "encoders",
        "errors",
        "evaluation",
        "methods",
        "progress",
        "run",
        "samples",
        "context",
        "texts",
    },
    "predictions": {"errors", "predictor"},
    "shards": {"data", "engines", "errors", "locking", "predictions", "predictor", "run", "sections"},
    "export": {"data", "errors", "evaluation", "methods", "predictor", "run", "__version__"},
    "display": {"data", "peer_configs", "evaluation", "predictor"},
    "__main__": {"cli"},
    "cli": {
        "ablation",
        "compare",
        "convert",
        "sections",
        "config",
        "data",
        "display",
        "errors",
        "evaluation",
        "explain",
        "export",
        "peer_configs",
        "predictions",
        "predictor",
        "progress",
        "samples",
        "shards",
        "context",
        "sweep",
        "text_files",
        "texts",
        "training",
        "__version__",
    },
}
FILES = sorted(SOURCE.rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Every module that a file imports, at any depth of its code."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            module = node.module or ""
            modules |= {f"{module}.{name.name}" for name in node.names} if module == "carat" else {module}
    return modules


def room(file: Path) -> str:
    return file.relative_to(SOURCE).with_suffix("").parts[0]


def test_rooms_are_all_known() -> None:
    assert {room(file) for file in FILES} - {"__init__"} == set(ALLOWED)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_imports_go_one_way(file: Path) -> None:
    if room(file) == "__init__":
        return
    carat = {module.split(".")[1] for module in imported(file) if module.startswith("carat.")}
    assert carat - {room(file)} <= ALLOWED[room(file)]


@pytest.mark.parametrize(
    "name", ["model", "objective", "methods", "encoders", "evaluation", "data", "predictor"]
)
def test_only_training_knows_lightning(name: str) -> None:
    for file in FILES:
        if room(file) == name:
            assert not any(m.split(".")[0] in ("lightning", "torchmetrics") for m in imported(file)), file


def test_only_the_registry_names_methods_to_training() -> None:
    for file in (SOURCE / "training").rglob("*.py"):
        assert not any(m.startswith(("carat.model", "carat.peers")) for m in imported(file)), file


def test_rooms_are_not_too_large() -> None:
    long = {file.name: n for file in FILES if (n := len(file.read_text().splitlines())) > 400}
    assert not long
