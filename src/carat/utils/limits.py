"""Limits on CPU time and memory of processes that read untrusted files."""

from __future__ import annotations

import math
import resource


def limit_resources(seconds: float, memory: int) -> None:
    """Limit this process; lower limits that it already has stay.

    Args:
        seconds: CPU time in seconds from now on, after which the process is killed.
        memory: address space in bytes.
    """
    used = resource.getrusage(resource.RUSAGE_SELF)
    for kind, value in (
        (resource.RLIMIT_CPU, math.ceil(used.ru_utime + used.ru_stime + seconds)),
        (resource.RLIMIT_AS, memory),
    ):
        allowed = resource.getrlimit(kind)[1]
        value = value if allowed == resource.RLIM_INFINITY else min(value, allowed)
        resource.setrlimit(kind, (value, value))
