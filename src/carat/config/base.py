"""Sections of a configuration, and how they are read from YAML: checked, with errors in one line."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from carat.utils.errors import ConfigError, did_you_mean

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Weight = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class Section(BaseModel):
    """A part of a configuration: unknown keys are errors, values never change afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the keys of `over` laid on top, mapping by mapping.

    >>> merge({"a": {"b": 1, "c": 2}}, {"a": {"c": 3}})
    {'a': {'b': 1, 'c': 3}}
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        merged[key] = merge(below, value) if both else value  # type: ignore[arg-type]
    return merged


def parse(model: type[S], values: Mapping[str, Any], origin: str) -> S:
    """Validate `values`; the error is one line that names the key, what was found and what is expected."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explain(error, model, values)}") from error


def explain(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any] | None = None) -> str:
    """The most telling problem of a pydantic error in one line, with a did-you-mean for unknown keys.

    Args:
        error: what pydantic found.
        model: what was validated.
        values: what was given; names of union members are left out of the path when it is known.
    """
    found = error.errors(include_url=False)
    unknown = [problem for problem in found if problem["type"] == "extra_forbidden"]
    first = (unknown or found)[0]
    missing = first["type"] != "value_error"  # what a whole section breaks is told by keys that are there
    path = _written_path(first["loc"], values, missing)
    where = ".".join(path)
    if unknown:
        return f"unknown key '{where}'{_suggest(path, model)}"
    if first["type"] == "missing":
        return f"'{where}' is missing"
    if first["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return f"{where}: expected keys and values, found {first['input']!r}"
    if first["type"] == "list_type":
        return f"{where}: expected a list such as [{first['input']}], found {first['input']!r}"
    if first["type"] == "union_tag_invalid":
        context = first["ctx"]
        key = context["discriminator"].strip("'")
        return f"{where}: {key} '{context['tag']}' is none of {context['expected_tags']}"
    message = first["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    if first["type"] == "value_error":
        return f"{where}: {message}{more}" if where else f"{message}{more}"
    return f"{where}: {message}, found {first['input']!r}{more}"


def _written_path(location: tuple[int | str, ...], values: Any, missing: bool) -> list[str]:
    """The keys of a problem's place that stand in the input; pydantic adds the names of union members.

    The last one need not stand there if it may be `missing`.
    """
    path: list[str] = []
    for place, part in enumerate(location, start=1):
        if missing and place == len(location):
            return [*path, str(part)]
        if isinstance(values, Mapping) and part not in values:
            continue
        path.append(str(part))
        known = isinstance(values, Mapping) or (isinstance(values, list) and isinstance(part, int))
        values = values[part] if known else None
    return path


def _suggest(path: list[str], model: type[BaseModel]) -> str:
    keys = _keys(model)
    beside = [key for key in keys if key[:-1] == path[:-1]]
    for choices in (beside, keys):
        hint = did_you_mean(path[-1], [key[-1] for key in choices])
        for key in choices:
            if f"'{key[-1]}'" in hint:
                return f"; did you mean '{'.'.join(key if '*' not in key else [*path[:-1], key[-1]])}'?"
    return ""


def _keys(annotation: Any, prefix: tuple[str, ...] = ()) -> list[list[str]]:
    """Every key below a model as a path; `*` stands for the free keys of a mapping."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        keys = []
        for name, field in annotation.model_fields.items():
            keys += [[*prefix, name], *_keys(field.annotation, (*prefix, name))]
        return keys
    inner = (*prefix, "*") if getattr(annotation, "__origin__", None) is dict else prefix
    return [key for part in get_args(annotation) for key in _keys(part, inner)]


def read_yaml(file: str | os.PathLike[str]) -> dict[str, Any]:
    """A YAML file that holds one mapping; an empty file is an empty mapping."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read ({_reason(error)})") from error
    try:
        values = yaml.load(text, Loader=_NoRepeats)
    except (yaml.YAMLError, ValueError) as error:  # an impossible date is a ValueError
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{file}{line}: not valid YAML ({problem})") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{file}: expected 'key: value' lines, found {type(values).__name__}")
    return values


class _NoRepeats(yaml.SafeLoader):
    """Refuses a mapping that names a key twice, of which YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                problem = f"key '{key.value}' occurs twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def expand(text: str) -> str:
    """Replace `${NAME}` and `${NAME:-default}` by environment variables.

    >>> expand("${CARAT_NO_SUCH_VARIABLE:-here}/file")
    'here/file'

    Raises:
        ConfigError: a variable without default is not set.
    """

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name) or default
        if found is None:
            raise ConfigError(f"'{text}' needs the environment variable {name}, which is not set")
        return found

    return re.sub(r"\$\{(?P<name>\w+)(:-(?P<default>[^}]*))?\}", value, text)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
