"""The most memory that this process has held, counted anew for each training of a campaign."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

_OWN = Path("/proc/self")


def forget_peak() -> None:
    """Start counting again, where the system can (Linux); elsewhere the peak is that of the whole process."""
    with contextlib.suppress(OSError):
        (_OWN / "clear_refs").write_text("5")


def peak_gb() -> float:
    """Largest resident memory since `forget_peak`, or since the process began, in GB (10⁹ bytes)."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", (_OWN / "status").read_text())
        if found:
            return int(found[1]) * 1024 / 1e9
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e9
