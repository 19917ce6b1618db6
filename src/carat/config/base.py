"""Base class of configuration sections, YAML reading, and one-line validation errors."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carat.config.yaml_reading import MAX_BYTES, parse_yaml
from carat.utils.errors import ConfigError, did_you_mean
from carat.utils.reading import read_text

MAX_INTEGER = 2**31 - 1
"""Limit of whole numbers; what a model of such sizes needs is compared with the memory before training."""
Positive = Annotated[int, Field(gt=0, le=MAX_INTEGER)]
Count = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Layers = Annotated[int, Field(ge=0, le=100)]
MAX_FLOAT = 1e30
"""Limit of numbers, which PyTorch must be able to represent in float32."""
Weight = Annotated[float, Field(ge=0, le=MAX_FLOAT)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """Base class of configuration sections: immutable, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Merge two nested mappings; values of `over` take precedence.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    merged = dict(base)
    for key, value in over.items():
        current = merged.get(key)
        both = isinstance(current, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(current, value) if both else value  # type: ignore[arg-type]
    return merged


def parse(model: type[S], values: Mapping[str, Any], origin: str) -> S:
    """Validate the values of a section.

    Args:
        model: class of the section.
        values: nested mapping.
        origin: file or name at the start of error messages.

    Raises:
        ConfigError: one line with the key, the value and what is expected.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, model, values)}") from error


def explain(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any] | None = None) -> str:
    """Summarize a pydantic error in one line, with a suggestion for unknown keys.

    Args:
        error: validation error.
        model: validated class.
        values: validated values; if given, names of union members are omitted from the path.
    """
    problems = error.errors(include_url=False)
    unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
    first = (unknown or problems)[0]
    may_be_missing = first["type"] != "value_error"  # errors of a whole section name existing keys
    path = _input_path(first["loc"], values, may_be_missing)
    where = ".".join(path)
    if unknown:
        return f"unknown key '{where}'{_suggest(path, model)}"
    if first["type"] == "missing":
        return f"'{where}' is missing"
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: expected a mapping, found {first['input']!r}"
    if first["type"] == "list_type":
        return f"{where}: expected a list such as [{first['input']}], found {first['input']!r}"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        key = context["discriminator"].strip("'")
        return f"{where}: unknown {key} '{context['tag']}', expected one of {context['expected_tags']}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    if first["type"] == "value_error":
        return f"{where}: {message}{more}" if where else f"{message}{more}"
    return f"{where}: {message}, found {first['input']!r}{more}"


def _input_path(location: tuple[int | str, ...], values: Any, may_be_missing: bool) -> list[str]:
    """Keys of a pydantic location that exist in the input; pydantic adds names of union members.

    The last key is kept in any case if it may be missing from the input.
    """
    path: list[str] = []
    for depth, part in enumerate(location, start=1):
        if may_be_missing and depth == len(location):
            return [*path, str(part)]
        if isinstance(values, Mapping) and part not in values:
            continue
        path.append(str(part))
        known = isinstance(values, Mapping) or (isinstance(values, list) and isinstance(part, int))
        values = values[part] if known else None
    return path


def _suggest(path: list[str], model: type[BaseModel]) -> str:
    """Suggest a similar key, of the same section if possible."""
    keys = _keys(model)
    siblings = [key for key in keys if key[:-1] == path[:-1]]
    for choices in (siblings, keys):
        hint = did_you_mean(path[-1], [key[-1] for key in choices])
        for key in choices:
            if f"'{key[-1]}'" in hint:
                return f"; did you mean '{'.'.join(key if '*' not in key else [*path[:-1], key[-1]])}'?"
    return ""


def _keys(annotation: Any, prefix: tuple[str, ...] = ()) -> list[list[str]]:
    """Paths of all keys of a model; `*` stands for the arbitrary keys of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = []
        for name, field in annotation.model_fields.items():
            keys += [[*prefix, name], *_keys(field.annotation, (*prefix, name))]
        return keys
    inner = (*prefix, "*") if getattr(annotation, "__origin__", None) is dict else prefix
    return [key for part in get_args(annotation) for key in _keys(part, inner)]


def read_yaml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a YAML file that contains a mapping; an empty file is an empty mapping.

    Raises:
        ConfigError: the file cannot be read, is not valid YAML, or contains something else.
    """
    try:
        Path(file).stat()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file}: cannot be read ({getattr(error, 'strerror', error)})") from error
    text = read_text(Path(file), ConfigError, MAX_BYTES)
    values = parse_yaml(text, str(file))
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{file}: expected a mapping, found {type(values).__name__}")
    return values


def expand(text: str) -> str:
    """Expand environment variables, written as `${NAME}` or `${NAME:-default}`.

    >>> expand("${CARAT_NO_SUCH_VARIABLE:-here}/file")
    'here/file'

    Raises:
        ConfigError: a variable without a default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        content = os.environ.get(name) or default
        if content is None:
            raise ConfigError(f"'{text}' requires the environment variable {name}, which is not set")
        return content

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}", value, text)
