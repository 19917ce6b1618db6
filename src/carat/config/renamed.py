"""Renamed configuration keys, so that older files and runs still load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Renamed:
    """Current name of a key, and current names of its values where they changed too."""

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
"""Current names by the dotted key of carat 0.1."""


def rename_keys(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Replace renamed keys and values of an experiment.

    Args:
        values: nested mapping, as read from YAML.

    Returns:
        The values with current names, and one notice for each renamed key or value.

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
