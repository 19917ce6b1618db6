"""Code of Markdown pages: fenced blocks with their language and file name, and their `carat` commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```', flags=re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block."""

    language: str
    """As written behind the fence; empty if none is."""
    title: str
    """Name of the file that it is the content of; empty if none is given."""
    text: str

    def commands(self) -> Iterator[str]:
        """Command lines without comments, those that end in a backslash with what follows."""
        for line in self.text.replace("\\\n", " ").splitlines():
            command = line.partition("  #")[0].strip()
            if command and not command.startswith("#"):
                yield command


def blocks(page: Path, *languages: str) -> list[Block]:
    """Blocks of a page, in order; of these languages only, if any are given."""
    found = [Block(*match) for match in FENCE.findall(page.read_text(encoding="utf-8"))]
    return [block for block in found if not languages or block.language in languages]


def name_of(page: Path) -> str:
    """Path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def carat_commands() -> list[Any]:
    """Every `carat` command of every page, as parameters: name of the page, command."""
    return [
        pytest.param(name_of(page), command, id=f"{name_of(page)}: {command}")
        for page in PAGES
        for block in blocks(page, "sh", "")
        for command in block.commands()
        if shlex.split(command, comments=True)[:1] == ["carat"]
    ]
