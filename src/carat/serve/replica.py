"""A replica of the server: the application of one process among several machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from carat.serve.app import make_app
from carat.serve.security import DATA_HEADERS, refuse
from carat.serve.served_run import ServedRun, find_runs, load_runs
from carat.serve.settings import Settings, is_loopback
from carat.serve.workspace import open_workspace

NO_CLIPS = "clips are not scored by replicas, of which only one would know the job; use carat serve"
NO_TOKEN = "other machines may use the server only with a token, see carat.serve.ray_app"


def make_builder(sources: Sequence[str], settings: Settings) -> Callable[[], ASGIApp]:
    """Make the function that loads the runs in a replica and returns its ASGI application."""

    def build() -> ASGIApp:
        return ReplicaApp(load_runs(find_runs(sources), **settings.load), settings)

    return build


class ReplicaApp:
    """ASGI application of a replica: that of `carat serve`, with a private folder for as long as it runs.

    Args:
        runs: runs by name.
        settings: settings of the server.
    """

    def __init__(self, runs: Mapping[str, ServedRun], settings: Settings) -> None:
        self._runs, self._settings = runs, settings
        self._local_only = not (settings.token or settings.insecure)
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http" and self._local_only and not is_from_this_machine(scope):
            await refuse(403, NO_TOKEN, send, DATA_HEADERS)
        elif self._app is not None:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        with open_workspace() as workspace:
            self._app = make_app(self._runs, self._settings, workspace, clip_problem=NO_CLIPS)
            await self._app(scope, receive, send)


def is_from_this_machine(scope: Scope) -> bool:
    """Whether a request was sent by the machine whose proxy received it."""
    client = scope.get("client")
    return client is not None and is_loopback(client[0])
