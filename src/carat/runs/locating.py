"""Names of runs: folders, runs that carat comes with, and runs on the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path

from carat.runs.folder import CARD
from carat.runs.hub import download, parse_name

SHIPPED = Path(__file__).parent / "shipped"
"""Folder of the runs that carat comes with."""


def locate(run: str | os.PathLike[str]) -> Path:
    """Return the folder of a run; one on the hub is downloaded, or taken from the cache.

    Args:
        run: folder, the name of a run that carat comes with unless there is a folder of that name, or a name
            `hf://owner/name@revision`.

    Raises:
        ConfigError: the name is invalid.
        RunError: see `carat.runs.hub.download`.
    """
    name = parse_name(run)
    if name is not None:
        return download(name)
    path = Path(run)
    return path if path.exists() else shipped_runs().get(str(path), path)


def shipped_runs() -> dict[str, Path]:
    """Folders of the runs that carat comes with, by name."""
    return {card.parent.name: card.parent for card in sorted(SHIPPED.glob(f"*/{CARD}"))}
