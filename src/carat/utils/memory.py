"""Peak resident memory of the process, resettable per training run."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_PROCESS = Path("/proc/self")


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
