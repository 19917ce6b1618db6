"""The HTTP server: one process, or several that listen on the same port."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from carat.serve.settings import Settings
from carat.utils.errors import ConfigError, RunError
from carat.utils.logging import logger

if TYPE_CHECKING:
    from fastapi import FastAPI

    from carat.serve.served_run import ServedRun

BACKLOG = 2048
"""Connections that may wait to be accepted."""
EXTRA = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
"""Packages of the extra `serve`."""


def serve(
    runs: Sequence[str | os.PathLike[str]],
    settings: Settings | None = None,
    *,
    workers: int = 1,
) -> None:
    """Serve runs until SIGINT or SIGTERM: open requests are answered, and clips that are not scored yet fail.

    Args:
        runs: finished runs, see `carat.load`; the first one is the default.
        settings: settings of the server.
        workers: number of server processes, each with its own copy of the runs.

    Raises:
        ConfigError: the settings are unsafe, or no run is given.
        RunError: a run cannot be loaded, or the extra is not installed.
        OSError: the address is in use.
    """
    settings = settings or Settings()
    settings.check()
    require_extra()
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    from carat.serve.served_run import find_runs, load_runs
    from carat.serve.workspace import open_workspace

    folders = find_runs(runs)
    loaded = load_runs(folders, **settings.load)  # errors before anything is opened
    with _listen(settings) as opened, open_workspace() as workspace, _handled_signals():
        config = uvicorn.Config(
            partial(create_app, folders, settings, workspace),
            factory=True,
            workers=workers,
            log_config=None,
            access_log=False,  # addresses have IDs of jobs
            server_header=False,
            timeout_graceful_shutdown=settings.limits.shutdown_seconds,
            backlog=BACKLOG,
            ws="none",
        )
        _announce(settings, opened.getsockname()[1], list(loaded))
        if workers == 1:
            config.app = partial(create_app, folders, settings, workspace, loaded)
            uvicorn.Server(config).run([opened])
        else:
            del loaded
            Multiprocess(config, [opened]).run()


def create_app(
    folders: Mapping[str, str],
    settings: Settings,
    workspace: Path,
    loaded: Mapping[str, ServedRun] | None = None,
) -> FastAPI:
    """Make the application in a server process; see `carat.serve.app.make_app`."""
    from carat.serve.app import make_app
    from carat.serve.served_run import load_runs

    runs = loaded if loaded is not None else load_runs(folders, **settings.load)
    return make_app(runs, settings, workspace)


@contextmanager
def _handled_signals() -> Iterator[None]:
    """Return normally after a signal that ended the server, which uvicorn raises again (context manager)."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(settings: Settings) -> socket.socket:
    """Open the port before runs are served from it, so that a port in use is a one-line error."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    opened = socket.socket(family)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        opened.bind((settings.host, settings.port))
        opened.listen(BACKLOG)  # who comes before the application is ready waits
    except OSError as error:
        opened.close()
        raise ConfigError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from error
    opened.set_inheritable(True)
    return opened


def _announce(settings: Settings, port: int, names: Sequence[str]) -> None:
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    logger.info(f"serving {', '.join(names)} at {address} (Ctrl-C stops)")
    if settings.insecure and not settings.token:
        logger.warning("note: anyone who reaches this machine can use the server")


def require_extra() -> None:
    from importlib.util import find_spec

    if missing := [name for name in EXTRA if find_spec(name) is None]:
        raise RunError(f"the server needs {', '.join(missing)}: pip install 'carat-emotion[serve]'")
