"""Number of threads of the arithmetic on a CPU."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Quota of a container (cgroup v2): microseconds per period, or `max`, and the period."""
WAIT_POLICY = "OMP_WAIT_POLICY"
"""Variable of OpenMP: what threads do between two parallel parts."""


def wait_passively() -> None:
    """Let threads of OpenMP sleep while they wait, unless the environment says otherwise.

    By default they spin, which on a busy machine takes the cores from the threads that they wait for. The
    setting is read when PyTorch is imported.
    """
    os.environ.setdefault(WAIT_POLICY, "PASSIVE")


def available_cores(quota: Path = QUOTA) -> int:
    """Cores that this process may use: by its affinity, and by the quota of its container.

    Args:
        quota: file with the quota.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        used, period = quota.read_text().split()
        if used != "max":
            cores = min(cores, math.ceil(int(used) / int(period)))
    except (OSError, ValueError, ZeroDivisionError):
        pass  # no container, or another kind
    return max(1, cores)


def set_threads(number: int | None = None) -> int:
    """Set the number of threads of PyTorch, and return it.

    Args:
        number: threads; by default as many as PyTorch takes (the physical cores, or `OMP_NUM_THREADS`), but
            not more than the available cores.
    """
    import torch

    threads = number or min(torch.get_num_threads(), available_cores())
    if threads != torch.get_num_threads():
        torch.set_num_threads(threads)
    if number:
        os.environ["OMP_NUM_THREADS"] = str(number)  # of child processes
    return threads
