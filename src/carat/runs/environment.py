"""Provenance of results: versions, machine and commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from carat.utils.version import version

PACKAGES = ("torch", "lightning", "numpy", "scikit-learn")


def describe_environment() -> dict[str, Any]:
    """Collect versions, machine, command and commit, the content of `environment.json`."""
    return {
        "python": platform.python_version(),
        "packages": {"carat": version()} | {name: metadata.version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "command": sys.argv,
        "commit": commit(),
    }


def commit() -> str | None:
    """Return the git commit of the source tree, with `+changes` if modified; None outside of git."""
    root = Path(__file__).resolve().parents[3]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def processor() -> str:
    """Return the model name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
