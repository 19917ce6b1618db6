"""Runs written by earlier versions: current names of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TypeVar

T = TypeVar("T")

PARTS = {
    "widen": "linear1",
    "narrow": "linear2",
    "attended": "out_proj",
    "attention_norm": "norm1",
    "output_norm": "norm2",
}
"""Of Transformer layers, by their names in schema 1."""


def rename_weights(state: Mapping[str, T]) -> dict[str, T]:
    """A state dictionary of a schema 1 run by the names that models have today.

    >>> rename_weights({"method.model.encoder.text.layers.0.widen.bias": 1, "queue.rows": 2})
    {'model.network.encoder.text.layers.0.linear1.bias': 1, 'memory_bank.rows': 2}
    """
    return {rename_weight(name): value for name, value in state.items()}


def rename_weight(name: str) -> str:
    """The current name of one weight."""
    if name.startswith("method."):  # the model behind pretrained encoders
        return f"model.{rename_weight(name.removeprefix('method.'))}"
    name = re.sub(r"^model\.", "network.", name)
    name = re.sub(r"^queue\.", "memory_bank.", name)
    return re.sub(rf"(^|\.)({'|'.join(PARTS)})\.", lambda found: f"{found[1]}{PARTS[found[2]]}.", name)
