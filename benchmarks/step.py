"""Training steps of the paper's size against bare encoders, timed in turns.

    python -m benchmarks.step

The yardstick is the forward and backward pass of torch's stock Transformer layers of the same sizes over the
padded batch, in float32; ratios are to it. A training step of ours also has the objective, clipping, the
optimizer, prototypes and queue.
"""

from __future__ import annotations

from collections.abc import Callable

import cyclopts
import torch

from benchmarks.measure import alternate, finish, in_own_process, machine, peak_gb, table
from benchmarks.workload import (
    BATCH,
    bare_step,
    make_batch,
    make_method,
    make_yardstick,
    mosei_lengths,
    training_step,
)

FILL = 3
"""Steps after which the paper's queue is full: 8,192 rows at 3,456 a step."""
YARDSTICK = "bare encoders, padded"


def steps(device: str, only: str | None = None) -> dict[str, Callable[[], None]]:
    """Every step that is timed, by the key of its ratio."""
    padded = make_batch(device=device)
    short = make_batch(lengths=mosei_lengths(BATCH), device=device)
    make = {
        YARDSTICK: lambda: bare_step(make_yardstick(device), padded),
        "paper_padded": lambda: training_step(make_method(device=device), padded),
        "paper_lengths": lambda: training_step(make_method(device=device), short),
        "official_padded": lambda: training_step(make_method("official", device=device), padded),
        "bf16_padded": lambda: training_step(make_method(device=device), padded, bf16=True),
        "bf16_lengths": lambda: training_step(make_method(device=device), short, bf16=True),
    }
    return {name: build() for name, build in make.items() if only in (None, name)}


def main(*, rounds: int = 11, device: str = "auto", peak_of: str | None = None) -> None:
    """Time training steps.

    Parameters
    ----------
    rounds
        Rounds, in each of which every step is timed once; medians are printed.
    device
        cpu, cuda, or auto: a GPU when there is one.
    peak_of
        Only take a few steps of this key and print the process's peak memory.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if peak_of is not None:
        (call,) = steps(device, peak_of).values()
        for _ in range(FILL + 2):
            call()
        print(f'{{"peak_gb": {peak_gb()}}}')
        return
    peaks = {
        key: in_own_process("benchmarks.step", "--peak-of", key, "--device", device)["peak_gb"]
        for key in ("paper_padded", "official_padded")
    }
    found = alternate(steps(device), rounds, warmup=FILL)
    yardstick = found.pop(YARDSTICK)
    ratios = {key: value / yardstick for key, value in found.items()}
    mean = mosei_lengths(BATCH).double().mean().item()
    rows: list[list[object]] = [[YARDSTICK, yardstick, 1.0, ""]]
    rows += [[key, found[key], ratios[key], peaks.get(key, "")] for key in found]
    text = (
        f"Training step, batch {BATCH}, {machine()['threads']} threads, {device}; lengths: mean {mean:.1f} "
        f"of 60 steps\n\n" + table(["step", "seconds", "ratio to yardstick", "peak GB"], rows)
    )
    times = {"yardstick_s": yardstick} | {f"{key}_s": value for key, value in found.items()}
    finish(
        text,
        times
        | ratios
        | {"peak_gb": peaks["paper_padded"], "official_peak_gb": peaks["official_padded"], "device": device},
    )


if __name__ == "__main__":
    cyclopts.run(main)
