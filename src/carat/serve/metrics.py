"""Metrics for Prometheus: requests, batches, what waits, and jobs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LATENCIES = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
"""Upper limits in seconds of the classes of the histogram of latency."""
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024)
"""Upper limits of the classes of the histogram of batches."""


class Metrics:
    """The metrics of one server process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "carat_requests", "Requests.", ["method", "route", "status"], registry=self._registry
        )
        self._latency = Histogram(
            "carat_request_seconds", "Time to answer.", ["route"], buckets=LATENCIES, registry=self._registry
        )
        self._batches = Histogram(
            "carat_batch_size",
            "Texts or samples that were scored together.",
            ["kind"],
            buckets=SIZES,
            registry=self._registry,
        )
        self._waiting = Gauge(
            "carat_waiting", "Texts or samples that wait.", ["kind"], registry=self._registry
        )
        self._jobs = Gauge("carat_jobs", "Clips that wait or are being scored.", registry=self._registry)

    def on_batch(self, kind: str, weight: int) -> None:
        """Count a batch of texts or samples."""
        self._batches.labels(kind).observe(weight)

    def on_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def watch_waiting(self, kind: str, count: Callable[[], int]) -> None:
        """Read the number of texts or samples that wait by a function, at every scrape."""
        self._waiting.labels(kind).set_function(count)

    def watch_jobs(self, count: Callable[[], int]) -> None:
        """Read the number of active jobs by a function, at every scrape."""
        self._jobs.set_function(count)

    def response(self) -> Response:
        """All metrics in the text format of Prometheus."""
        return Response(generate_latest(self._registry), media_type=CONTENT_TYPE_LATEST)


class Measure:
    """ASGI middleware that counts requests by their route, never by the path that a client chose.

    Args:
        app: application.
        metrics: where requests are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_and_note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        finally:
            route: Any = scope.get("route")
            method = scope["method"] if scope["method"] in METHODS else "other"
            path = getattr(route, "path", "none")
            self._metrics.on_request(method, path, status, time.perf_counter() - started)


METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
