"""HTML files from jinja2 templates."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any


def render(template: Path, **values: Any) -> str:
    """Render an HTML template; text is escaped unless the template marks it as safe.

    Args:
        template: file of the template.
        values: what the template uses; a name that it uses and that is missing is an error.
    """
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment.from_string(template.read_text(encoding="utf-8")).render(values) + "\n"


def source_hash(text: str) -> str:
    """The source expression by which a Content Security Policy permits an inline style or script.

    >>> source_hash("a { color: red }")
    "'sha256-LHvAPItmcc9l4w10oslyz6Nh8tFuoEH5lssCs9WdKIE='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
