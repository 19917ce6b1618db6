"""Settings of the server: where it listens, who may use it, and its limits."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from carat.utils.errors import ConfigError

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Limits of size, length, time and number of what the server accepts."""

    max_texts: int = 256
    """Texts of a request."""
    max_characters: int = 20_000
    """Characters of a text."""
    max_words: int = 4_000
    """Words of all texts of a request in which every word is left out in turn."""
    max_samples: int = 1_000
    """Samples of a feature file."""
    max_features_mb: int = 64
    """Size of a feature file, and of what it unpacks to, in megabytes."""
    max_clip_mb: int = 512
    """Size of a clip in megabytes."""
    max_clip_seconds: int = 3_600
    """Length of a clip in seconds."""
    max_batch: int = 64
    """Texts or samples that are scored together, each text without one of its words included."""
    max_waiting: int = 2_048
    """Texts or samples that wait; further requests are answered with status 429."""
    max_jobs: int = 8
    """Clips that wait or are being scored; further ones are answered with status 429."""
    wait_seconds: float = 60.0
    """Time after which a request that waits is answered with status 503."""
    job_seconds: float = 3_600.0
    """Time after which a clip that is being scored fails."""
    keep_seconds: float = 3_600.0
    """Time after which the results of a clip are deleted."""
    shutdown_seconds: int = 10
    """Time that open requests have to finish when the server stops."""

    def check(self) -> None:
        """Check the limits.

        Raises:
            ConfigError: one is not positive.
        """
        for name in (limit.name for limit in fields(self)):
            if not 0 < getattr(self, name) < float("inf"):
                option = name.replace("_", "-")
                raise ConfigError(f"--{option} {getattr(self, name)}: expected a positive number")

    @property
    def max_json(self) -> int:
        """Size of a JSON body in bytes: a character takes at most 12 as two escapes."""
        return MEGABYTE + min(12 * self.max_texts * self.max_characters, 64 * MEGABYTE)


@dataclass(frozen=True)
class Settings:
    """Settings of the server.

    Args:
        host: address to listen on.
        port: TCP port to listen on.
        token: what clients must send as a bearer token; empty if anyone who reaches the server may use it.
        insecure: allow other machines without a token.
        allowed_hosts: further names by which clients may address the server.
        load: arguments of `carat.load`, for every run.
        limits: limits of what it accepts.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str = ""
    insecure: bool = False
    allowed_hosts: tuple[str, ...] = ()
    limits: Limits = Limits()
    load: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Check the settings.

        Raises:
            ConfigError: other machines could use the server without a token, the token is unsuitable,
                or a limit is not positive.
        """
        self.limits.check()
        if self.token and (len(self.token) < MIN_TOKEN or not self.token.isascii() or " " in self.token):
            raise ConfigError(f"--token needs at least {MIN_TOKEN} ASCII characters without spaces")
        if not (is_loopback(self.host) or self.token or self.insecure):
            raise ConfigError(
                f"--host {self.host} lets other machines use the server; protect it with --token, or allow "
                "this with --insecure"
            )


MIN_TOKEN = 16
"""Minimum length of a token in characters."""


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine.

    >>> [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
