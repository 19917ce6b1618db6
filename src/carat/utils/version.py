"""The installed version of carat."""

from __future__ import annotations

from importlib import metadata

DISTRIBUTION = "carat-emotion"
"""Name under which the package is installed."""


def version() -> str:
    """Return the version of the installed distribution; "unknown" if the source tree is not installed."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "unknown"
