"""Memory of the process: its resettable peak, and what is still available."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_PROCESS = Path("/proc/self")
_CONTROL_GROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)
"""Folder, limit and usage of a container, in both versions of control groups."""


def reset_peak() -> None:
    """Reset the peak to the current memory. Has an effect on Linux only."""
    with contextlib.suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5")


def peak_gb() -> float:
    """Return the peak resident memory since `reset_peak` or the start of the process, in GB (10⁹ bytes)."""
    with contextlib.suppress(OSError):
        match = re.search(r"VmHWM:\s+(\d+) kB", (_PROCESS / "status").read_text())
        if match:
            return int(match[1]) * 1024 / 1e9
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9


def available_bytes() -> int:
    """Return the memory in bytes that this process can still allocate, within the limits of its container."""
    available = [1 << 62]
    with contextlib.suppress(OSError):
        match = re.search(r"MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text())
        if match:
            available.append(int(match[1]) * 1024)
    for folder, limit, usage in _CONTROL_GROUPS:
        with contextlib.suppress(OSError, ValueError):  # the limit may be "max"
            bound = int(Path(folder, limit).read_text())
            used = int(Path(folder, usage).read_text())
            caches = re.findall(r"^(?:in)?active_file (\d+)$", Path(folder, "memory.stat").read_text(), re.M)
            available.append(bound - used + sum(map(int, caches)))  # file caches are given back
    return max(0, min(available))


def describe_bytes(size: int) -> str:
    """Format a number of bytes.

    >>> describe_bytes(3_200_000_000)
    '3.2 GB'
    """
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"
