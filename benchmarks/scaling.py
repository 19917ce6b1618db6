"""How time and memory of a training step grow with batch, time steps, labels and queue: fitted exponents.

    python -m benchmarks.scaling

One quantity at a time grows from a base of 32 samples, 60 valid steps, 6 labels, 2,048 queue rows and two
layers per encoder. Every point runs in a process of its own; memory is the most it holds above what it holds
with method and batch made. An exponent of 1 is linear growth.
"""

from __future__ import annotations

import json
import statistics

import cyclopts
import numpy as np

from benchmarks.measure import finish, in_own_process, machine, peak_gb, seconds, table
from benchmarks.workload import WIDTHS, make_batch, make_method, training_step

BASE = {"batch": 32, "steps": 60, "labels": 6, "queue": 2048}
VALUES = {
    "batch": [16, 32, 64, 128],
    "steps": [30, 60, 120, 240, 480],
    "labels": [3, 6, 12, 24],
    "queue": [2048, 8192, 32768, 131072],
}
LAYERS = 2


def one(batch: int, steps: int, labels: int, queue: int, rounds: int) -> None:
    """Print median seconds and peak memory of one point."""
    method = make_method(
        labels=labels,
        contrast={"queue": queue},
        encoder={"layers": dict.fromkeys(WIDTHS, LAYERS)},
    )
    call = training_step(method, make_batch(batch, steps, labels))
    before = peak_gb()
    call()
    times = [seconds(call) for _ in range(rounds)]
    print(json.dumps({"seconds": statistics.median(times), "gb": peak_gb() - before}))


def exponent(values: list[int], measured: list[float]) -> float:
    """Slope of log(measured) over log(values), least squares."""
    return float(np.polyfit(np.log(values), np.log(measured), 1)[0])


def main(*, rounds: int = 3, point: str | None = None) -> None:
    """Measure growth.

    Parameters
    ----------
    rounds
        Steps per point after the first; their median is taken.
    point
        Only this point, given as JSON; prints seconds and memory.
    """
    if point is not None:
        one(**json.loads(point), rounds=rounds)
        return
    rows: list[list[object]] = []
    exponents: dict[str, float] = {}
    for name, values in VALUES.items():
        found = [
            in_own_process(
                "benchmarks.scaling", "--point", json.dumps(BASE | {name: value}), "--rounds", str(rounds)
            )
            for value in values
        ]
        rows += [[name, v, x["seconds"], x["gb"]] for v, x in zip(values, found, strict=True)]
        for kind in ("seconds", "gb"):
            exponents[f"{name}_{kind}"] = exponent(values, [x[kind] for x in found])
        rows.append([name, "exponent", exponents[f"{name}_seconds"], exponents[f"{name}_gb"]])
    text = f"One training step, base {BASE}, {machine()['threads']} threads, float32\n\n" + table(
        ["what grows", "to", "seconds", "GB"], rows
    )
    finish(text, exponents)


if __name__ == "__main__":
    cyclopts.run(main)
