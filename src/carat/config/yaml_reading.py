"""Bounded parsing of YAML text: no aliases that multiply, no deep nesting, no huge numbers."""

from __future__ import annotations

from typing import Any

import yaml

from carat.utils.errors import ConfigError

MAX_BYTES = 1 << 20
"""Maximum size in bytes of a YAML file; PyYAML parses about 0.2 MB per second."""
MAX_DEPTH = 50
"""Maximum depth of nested mappings and lists."""
MAX_NODES = 20_000
"""Maximum number of values and keys, where an alias counts as everything that it stands for."""
MAX_INTEGER = 1 << 63
"""Magnitude from which integers are refused."""


def parse_yaml(text: str, origin: str) -> Any:
    """Parse YAML text with plain values only: mappings, lists, strings, numbers, booleans, dates and null.

    Args:
        text: YAML.
        origin: file at the start of error messages.

    Raises:
        ConfigError: not valid YAML, duplicate keys, nested too deeply, or too large with aliases expanded.

    >>> parse_yaml("{a: &x [1], b: *x}", "file.yaml")
    {'a': [1], 'b': [1]}
    """
    try:
        return yaml.load(text, Loader=_BoundedLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ConfigError(f"{origin}{line}: not valid YAML ({problem})") from error
    except (ValueError, ArithmeticError, LookupError, AttributeError) as error:
        # what PyYAML raises for impossible dates, `!!int ''` and the like
        raise ConfigError(f"{origin}: not valid YAML (a value does not fit its type: {error})") from error


class _BoundedLoader(yaml.SafeLoader):
    """Safe loader with limits; also rejects duplicate keys, of which PyYAML would silently keep the last."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._nodes = 0
        self._sizes: dict[str, int] = {}
        """Nodes below each anchor that is complete, aliases expanded."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        anchor, before = event.anchor, self._nodes
        if isinstance(event, yaml.AliasEvent):
            if anchor in self.anchors and anchor not in self._sizes:
                raise _invalid(f"'*{anchor}' refers to itself", event.start_mark)
            self._nodes += self._sizes.get(anchor, 0)
        self._nodes, self._depth = self._nodes + 1, self._depth + 1
        if self._nodes > MAX_NODES:
            raise _invalid(f"more than {MAX_NODES} values, aliases expanded", event.start_mark)
        if self._depth > MAX_DEPTH:
            raise _invalid(f"nested more than {MAX_DEPTH} levels deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._sizes[anchor] = self._nodes - before
        return node

    def construct_scalar(self, node: Any) -> Any:
        value = super().construct_scalar(node)
        if isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            raise _invalid("half of a surrogate pair", node.start_mark)
        return value

    def construct_integer(self, node: Any) -> int:
        """Convert an integer, unless it is too large for any setting."""
        digits = str(self.construct_scalar(node))
        value: int = self.construct_yaml_int(node) if len(digits) < 100 else MAX_INTEGER
        if abs(value) >= MAX_INTEGER:
            raise _invalid("the integer is too large", node.start_mark)
        return value

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in keys:
                raise _invalid(f"duplicate key '{key.value}'", key.start_mark)
            keys.add(key.value)
        return super().construct_mapping(node, deep)


_BoundedLoader.add_constructor("tag:yaml.org,2002:int", _BoundedLoader.construct_integer)


def _invalid(problem: str, mark: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
