"""The ASGI application: page, API and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from multiprocessing.connection import wait
from pathlib import Path
from types import FrameType
from typing import Any

from fastapi import FastAPI

from carat.serve import clip_worker
from carat.serve.clip_routes import make_clip_router, make_refusing_router
from carat.serve.error_handlers import add_handlers
from carat.serve.metrics import Measure
from carat.serve.page_files import make_page_router
from carat.serve.routes import make_router
from carat.serve.security import Guard
from carat.serve.served_run import ServedRun
from carat.serve.settings import Settings
from carat.serve.state import State
from carat.utils.version import version

SWEEP_SECONDS = 30.0
"""Seconds between two deletions of what has expired."""
MAX_FILES, MAX_FIELDS, MAX_FIELD = 2, 16, 1 << 16
"""Largest number of files and fields of a form, and size of a field in bytes."""
DESCRIPTION = """\
Emotion scores of texts, feature arrays, and audio and video files. Scores are a model's estimates, not facts
about a person. All errors are JSON with one line: `{"error": "…"}`."""


def make_app(
    runs: Mapping[str, ServedRun],
    settings: Settings,
    workspace: Path,
    *,
    clip_worker: Callable[..., None] = clip_worker.main,
    clip_problem: str = "",
) -> FastAPI:
    """Make the application of a server.

    Args:
        runs: runs by name, see `carat.serve.served_run.load_runs`; the first one is the default.
        settings: settings of the server.
        workspace: private folder for uploads and results, see `carat.serve.workspace.open_workspace`.
        clip_worker: function of the child process that scores clips.
        clip_problem: why the server scores no clips; empty if it does.

    Returns:
        ASGI application with the attribute `state.server`.
    """
    state = State(runs, settings, workspace, clip_worker)
    app = FastAPI(
        title="carat",
        description=DESCRIPTION,
        version=version(),
        docs_url=None,  # they load scripts from elsewhere
        redoc_url=None,
        lifespan=lambda app: _lifespan(state),
        form_limits={"max_files": MAX_FILES, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD},
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    app.state.server = state
    add_handlers(app, {str(run.predictor.folder): name for name, run in runs.items()})
    if clip_problem:
        for run in runs.values():
            run.clip_problem = clip_problem
    clip_router = make_refusing_router(clip_problem) if clip_problem else make_clip_router(state)
    for router in (make_router(state), clip_router, make_page_router()):
        app.include_router(router)
    app.add_middleware(Guard, settings=settings)
    app.add_middleware(Measure, metrics=state.metrics)
    return app


@asynccontextmanager
async def _lifespan(state: State) -> AsyncIterator[None]:
    """Work on clips and delete what has expired, until the server stops."""
    _exit_with_parent()
    state.clips.start()
    sweeper = asyncio.create_task(_sweep(state))
    try:
        with _notice_signals(state):
            yield
    finally:
        sweeper.cancel()
        await state.close()


async def _sweep(state: State) -> None:
    while True:
        with contextlib.suppress(OSError):
            state.jobs.remove_expired(time.time())
        await asyncio.sleep(SWEEP_SECONDS)


@contextmanager
def _notice_signals(state: State) -> Iterator[None]:
    """Note at once that the server stops, so that streams of events end with the reason (context manager)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def on_signal(number: int, frame: FrameType | None) -> None:
        state.is_stopping = True
        handler = handlers[number]
        if callable(handler):
            handler(number, frame)

    for number in handlers:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _exit_with_parent() -> None:
    """Stop this server process when the process that started it ends, even if that was killed."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
