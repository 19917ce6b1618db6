"""Files of the page; those of the page that `carat predict --clip` writes draw the timeline of a clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from carat.inference.clips import page as clip_page
from carat.serve.errors import ApiError

FOLDER = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
STATIC: Mapping[str, Path] = {
    **{path.name: path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES},
    clip_page.STYLE.name: clip_page.STYLE,
    **{path.name: path for path in clip_page.SCRIPTS},
}
"""Files by the names under which browsers load them; nothing else is sent."""


def make_page_router() -> APIRouter:
    """Make the routes of the page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/")
    async def index() -> Response:
        return _file("index.html")

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        return _file(name)

    @router.get("/favicon.ico")
    async def icon() -> Response:
        return Response(status_code=204)

    return router


def _file(name: str) -> Response:
    if name not in STATIC:
        raise ApiError(404, "not found")
    file = STATIC[name]
    return FileResponse(file, media_type=f"{TYPES[file.suffix]}; charset=utf-8")
