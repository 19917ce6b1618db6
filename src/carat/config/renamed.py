"""Configuration keys that were renamed, so that older files and runs keep loading."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Renamed:
    """The current name of a key, and the current names of its values where these changed too."""

    key: str
    values: Mapping[Any, Any] = field(default_factory=dict)


RENAMED = {
    "data.long": Renamed("data.truncation", {"error": False, "truncate": True}),
    "data.padding": Renamed("data.padding", {"visible": "unmasked"}),
    "training.average": Renamed("training.ema_decay"),
    "threshold.kind": Renamed("threshold.kind", {"compromise": "interpolated"}),
    "threshold.price": Renamed("threshold.max_micro_f1_drop"),
    "method.even_start": Renamed("method.identity_init"),
    "method.contrast.count_lonely": Renamed("method.contrast.average_over_all"),
    "method.loss.gamma_absent": Renamed("method.loss.gamma_neg"),
    "method.loss.gamma_present": Renamed("method.loss.gamma_pos"),
    "method.gamma_absent": Renamed("method.gamma_neg"),
    "method.gamma_present": Renamed("method.gamma_pos"),
    "method.share": Renamed("method.mask_ratio"),
}
"""By the dotted key of carat 0.1."""


def rename_keys(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """An experiment's values under their current names.

    Args:
        values: nested mapping, as read from YAML.

    Returns:
        The same values with current keys, and one notice for every key or value that was renamed.

    >>> rename_keys({"threshold": {"price": 0.02}})
    ({'threshold': {'max_micro_f1_drop': 0.02}}, ["'threshold.price' is now 'threshold.max_micro_f1_drop'"])
    """
    notices: list[str] = []
    return _rename(values, "", notices), notices


def _rename(values: Mapping[str, Any], prefix: str, notices: list[str]) -> dict[str, Any]:
    renamed = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if isinstance(value, Mapping):
            renamed[key] = _rename(value, f"{dotted}.", notices)
            continue
        new = RENAMED.get(dotted, Renamed(dotted))
        known = isinstance(value, str) and value in new.values
        current = new.values[value] if known else value
        if new.key != dotted:
            notices.append(f"'{dotted}' is now '{new.key}'")
        elif known:
            notices.append(f"{dotted}: '{value}' is now '{current}'")
        renamed[new.key.rpartition(".")[2]] = current
    return renamed
