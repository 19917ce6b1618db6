"""What fuzzing needs: strategies for values and their mutations, and the number of inputs.

`CARAT_FUZZ=20000` sets the number of inputs of each test.
"""

from __future__ import annotations

import os
import time
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from carat.utils.errors import CaratError

MAX_SECONDS = 5
FUZZ = settings(
    max_examples=int(os.environ.get("CARAT_FUZZ", "150")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.sampled_from(
        [
            "carat",
            "mult",
            "small",
            "text",
            "1e400",
            ".inf",
            "../x",
            "${NO_SUCH}",
            "a.b",
            "> 0",
            "train",
            10**30,
        ]
    )
)
KEYS = (
    st.sampled_from(
        [
            "preset",
            "method",
            "name",
            "data",
            "encoders",
            "training",
            "threshold",
            "seed",
            "hidden",
            "layers",
            "encoder",
            "modalities",
            "batch_size",
            "epochs",
            "folder",
            "kind",
            "devices",
            "lora",
            "rank",
            "order",
            "queue",
            "contrast",
            "weights",
            "loss",
            "max_lengths",
            "table",
            "id",
            "split",
            "splits",
            "group",
            "transcript",
            "labels",
            "columns",
            "rule",
            "dtype",
            "source",
            "file",
            "column",
            "values",
            "keys",
            "max_tokens",
            "context",
            "seconds",
            "rate",
            "standardize",
            "train",
            "valid",
            "test",
            "even_start",
            "long",
        ]
    )
    | st.text(max_size=5)
    | st.integers()
    | st.none()
    | st.booleans()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """A valid value with some parts replaced, removed or added."""
    if not isinstance(value, (dict, list)) or draw(st.integers(0, 9)) == 0:
        return draw(VALUES) if draw(st.integers(0, 3)) == 0 else value
    if isinstance(value, list):
        return [draw(mutated(item)) for item in value] + draw(st.lists(VALUES, max_size=1))
    changed = {}
    keys = list(value)
    chosen = draw(st.sets(st.sampled_from(keys), max_size=2)) if keys else set()
    for key in keys:
        if key not in chosen:
            changed[key] = value[key]
        elif draw(st.integers(0, 5)):
            changed[draw(KEYS) if draw(st.integers(0, 9)) == 0 else key] = draw(mutated(value[key]))
    return changed


def attempt(action: Any, *arguments: Any) -> None:
    """Fail unless the action succeeds in time, or raises a CaratError with a message of one line."""
    started, message = time.monotonic(), ""
    try:
        action(*arguments)
    except CaratError as error:
        message = str(error)
    assert "\n" not in message
    assert time.monotonic() - started < MAX_SECONDS
