"""Who may use the server: checks of host, origin and token, and headers of every answer."""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from carat.serve.errors import describe_fault
from carat.serve.settings import MEGABYTE, Settings

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
MAX_FORM = 1 << 16
"""Size in bytes of what a form has besides its file."""
PAGE = "/static/"
"""Beginning of the paths of the page; everything else is data, which no browser should run or show in a
frame."""
OPEN = frozenset({"/", "/favicon.ico", "/openapi.json", "/v1/health"})
"""Paths that need no token, besides those of the page."""
PAGE_POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "media-src 'self' blob:",
        "frame-src 'self'",
        "frame-ancestors 'self'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
)
"""Content Security Policy of the page: nothing inline, nothing from elsewhere."""
TOO_LARGE = "the body is larger than the limit"
DATA_POLICY = "default-src 'none'; frame-ancestors 'none'; sandbox"
COMMON_HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=()",
}


def _encode(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


PAGE_HEADERS, DATA_HEADERS = (
    _encode({"Content-Security-Policy": policy, "Cache-Control": caching, **COMMON_HEADERS})
    for policy, caching in ((PAGE_POLICY, "no-cache"), (DATA_POLICY, "no-store"))
)
"""Headers of every answer, encoded once."""


class Guard:
    """ASGI middleware that refuses requests before their body is read.

    Args:
        app: application to protect.
        settings: host, token and allowed hosts.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app = app
        self._token = settings.token
        self._hosts = {"localhost", settings.host.lower(), socket.gethostname().lower()}
        self._hosts |= {host.lower() for host in settings.allowed_hosts}
        limits = settings.limits
        self._limits = {
            "": limits.max_json,
            "/v1/predict/features": limits.max_features_mb * MEGABYTE + MAX_FORM,
            "/v1/predict/clip": limits.max_clip_mb * MEGABYTE + MAX_FORM,
        }
        """Size of the body in bytes by path; of other paths at the key ""."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return  # there are no web sockets
        path = route_path(scope)
        is_page = path == "/" or path.startswith(PAGE)
        is_started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal is_started
            if message["type"] == "http.response.start":
                is_started = True
                message["headers"] = [*message["headers"], *(PAGE_HEADERS if is_page else DATA_HEADERS)]
            await send(message)

        limit = self._limits.get(path, self._limits[""])
        problem = self._problem(scope["method"], path, Headers(scope=scope), limit)
        if problem is None:
            try:
                await self._app(scope, _limited(receive, limit), send_with_headers)
            except Exception as error:
                problem = describe_fault(error)
        if problem is not None and not is_started:
            await refuse(*problem, send_with_headers)

    def _problem(self, method: str, path: str, headers: Headers, limit: int) -> tuple[int, str] | None:
        """Status and message if a request is refused."""
        host = headers.get("host", "")
        if sum(name == b"host" for name, _ in headers.raw) != 1 or not is_allowed_host(host, self._hosts):
            return 400, "unknown host name; the server accepts others with --allow-host"
        if method not in SAFE_METHODS and not is_same_origin(headers, host):
            return 403, "requests from pages of other sites are refused"
        if self._token and path not in OPEN and not path.startswith(PAGE):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            expected = self._token.encode()
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), expected):
                return 401, "a token is needed: send the header 'Authorization: Bearer TOKEN'"
        length = headers.get("content-length", "0")
        if length.isascii() and length.isdigit() and int(length[:20]) > limit:
            return 413, TOO_LARGE
        return None


def route_path(scope: Scope) -> str:
    """The path by which a request is routed: without the prefix under which the application is mounted.

    >>> [route_path({"path": path, "root_path": "/a"}) for path in ("/a/v1/runs", "/a", "/ab/v1")]
    ['/v1/runs', '', '/ab/v1']
    """
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path.removeprefix(root) if f"{path}/".startswith(f"{root}/") else path


def is_allowed_host(host: str, allowed: Iterable[str]) -> bool:
    """Whether a Host header is an IP address or an allowed name.

    Another name could lead a browser from a page of that name to this server (DNS rebinding); an address
    cannot.

    >>> [is_allowed_host(host, {"localhost"}) for host in ("localhost:8000", "[::1]:80", "evil.org", "")]
    [True, True, False, False]
    """
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    if name is None or any(c in host for c in "/?#@\\"):
        return False
    if name.rstrip(".") in allowed:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_same_origin(headers: Headers, host: str) -> bool:
    """Whether a request comes from the server's own page, or from no page: browsers always say."""
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc.lower() != host.lower():
        return False
    return headers.get("sec-fetch-site", "none") in ("same-origin", "none")


def _limited(receive: Receive, limit: int) -> Receive:
    """Receive a body whose length may be unknown, up to a limit in bytes."""
    received = 0

    async def receive_within_limit() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise HTTPException(413, TOO_LARGE)
        return message

    return receive_within_limit


async def refuse(
    status: int, message: str, send: Send, more_headers: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Send an error as the answer to a request whose body was not read."""
    content = json.dumps({"error": message}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    headers += [(b"connection", b"close"), *more_headers]  # what follows may be the rest of the body
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
