"""Times, memory and what is printed: alternating rounds in one process, peaks in processes of their own."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from carat.runs.environment import commit, describe_environment
from carat.utils.tables import Table


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes, with what it started on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def alternate(calls: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, float]:
    """Median seconds of each call; they take turns, so that a slow moment of the machine meets all."""
    for _ in range(warmup):
        for call in calls.values():
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            times[name].append(seconds(call))
    return {name: statistics.median(found) for name, found in times.items()}


def peak_gb() -> float:
    """Most memory that this process has held so far, in GB (10⁹ bytes)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024 / 1e9
    raise RuntimeError("/proc/self/status names no VmHWM")


def output_of(module: str, *arguments: str) -> str:
    """What `python -m module …` prints."""
    called = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(called, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(called[1:])} ended with {done.returncode}: {done.stderr.strip()[-2000:]}"
        )
    return done.stdout


def in_own_process(module: str, *arguments: str) -> dict[str, Any]:
    """The last JSON line of `python -m module …`."""
    found: dict[str, Any] = json.loads(output_of(module, *arguments).splitlines()[-1])
    return found


def machine() -> dict[str, Any]:
    """Where and with what a number was obtained."""
    environment = describe_environment()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": commit(),
        "processor": environment["processor"],
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": environment["packages"]["torch"],
    }


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table whose columns line up; floats with three digits."""
    return Table(header, rows, digits=3).to_markdown(aligned=True)


def finish(text: str, values: Mapping[str, Any]) -> None:
    """Print the table and, as the last line, the values with the machine as JSON."""
    rounded = {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}
    print(text, json.dumps({"machine": machine()} | rounded), sep="\n\n")
