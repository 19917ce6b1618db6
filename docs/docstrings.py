"""Extension of mkdocstrings: code in docstrings becomes code blocks of the site."""

from __future__ import annotations

import re
from typing import Any

import griffe


class CodeBlocks(griffe.Extension):
    """Fences doctests and the code under `Example:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite an object's docstring."""
        if obj.docstring is not None:
            obj.docstring.value = fence_code(obj.docstring.value)


def fence_code(docstring: str) -> str:
    """A docstring whose code is fenced.

    Args:
        docstring: without common indentation.
    """
    lines: list[str] = []
    closing = ""  # of the block that is open
    inside_example = False
    for line in docstring.splitlines():
        indent = line[: len(line) - len(line.lstrip())]
        if closing and ((inside_example and line and not indent) or (not inside_example and not line)):
            lines.append(closing)
            closing, inside_example = "", False
        if not closing and line.lstrip().startswith(">>> "):
            lines.append(f"{indent}```pycon")
            closing = f"{indent}```"
        elif not closing and lines and re.fullmatch(r"Example:", lines[-1]):
            lines.append(f"{indent}```python")
            closing, inside_example = f"{indent}```", True
        lines.append(line)
    return "\n".join([*lines, closing] if closing else lines)
