"""Lists of runs: those in a folder, those that carat comes with, and those downloaded from the hub."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from carat.runs.card import read_run
from carat.runs.folder import CARD, EXPERIMENT
from carat.runs.hub import cache_folder
from carat.runs.locating import shipped_runs
from carat.utils.errors import CaratError, RunError, first_line

DEPTH = 3
"""Levels of folders that are searched."""


@dataclass(frozen=True)
class ListedRun:
    """A run that was found."""

    name: str
    """Its folder, or its name on the hub, by which commands take it."""
    method: str
    labels: list[str]
    modalities: list[str]
    micro_f1: float | None
    """On validation."""
    problem: str = ""
    """Why it cannot be used, if it cannot."""


def list_runs(folder: str | os.PathLike[str] = ".") -> list[ListedRun]:
    """List the finished runs in a folder, those that carat comes with, and downloaded ones.

    Args:
        folder: folder to search, three levels deep; links are not followed.

    Returns:
        Runs by name; those that cannot be read have a problem.

    Raises:
        RunError: there is no such folder.

    Example:
        [run.name for run in carat.list_runs()]
    """
    if not Path(folder).is_dir():
        raise RunError(f"{folder}: no such folder")
    found = [_describe(path, str(path)) for path in _search(Path(folder), DEPTH)]
    shipped = [_describe(path, name) for name, path in shipped_runs().items()]
    return found + shipped + [_describe(path, name) for name, path in _cached()]


def _search(folder: Path, depth: int) -> Iterator[Path]:
    """Folders with a card, in order."""
    if (folder / CARD).is_file() and (folder / EXPERIMENT).is_file():
        yield folder
    elif depth:
        try:
            inside = sorted(x for x in folder.iterdir() if x.is_dir() and not x.is_symlink())
        except OSError:
            return
        for path in inside:
            if not path.name.startswith("."):
                yield from _search(path, depth - 1)


def _cached() -> Iterator[tuple[str, Path]]:
    """Downloaded runs with their names on the hub."""
    for reference in sorted((cache_folder() / "hub").glob("*/refs/*.txt")):
        folder = reference.parents[1]
        path = folder / reference.read_text(encoding="utf-8").strip()
        if (path / CARD).is_file():
            yield f"hf://{folder.name.replace('--', '/', 1)}@{reference.stem.replace('--', '/')}", path


def _describe(path: Path, name: str) -> ListedRun:
    try:
        card, experiment = read_run(path)
    except (CaratError, OSError) as error:
        return ListedRun(name, "", [], [], None, first_line(error))
    f1 = card.validation.get("micro_f1")
    return ListedRun(name, experiment.method.name, card.labels, list(card.modalities), f1)
