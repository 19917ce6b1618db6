"""Answers of the API to errors: JSON with one line, and a fitting status."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from carat.serve.errors import ApiError, hide_paths
from carat.utils.errors import CaratError, printable, shorten

BODY_TYPES = ("application/json", "multipart/form-data")
STATUS_TEXTS = {404: "not found", 405: "method not allowed"}


def add_handlers(app: FastAPI, names: Mapping[str, str]) -> None:
    """Make all errors of an application JSON.

    Args:
        app: application.
        names: what to write in place of known paths.
    """

    @app.exception_handler(CaratError)
    async def on_carat_error(request: Request, error: CaratError) -> JSONResponse:
        if isinstance(error, ApiError):
            return answer(error.status, hide_paths(str(error), names), error.retry_after)
        return answer(422, hide_paths(str(error), names))

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> JSONResponse:
        return answer(error.status_code, describe_status(error), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid_request(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if first["loc"][0] == "body" and kind not in BODY_TYPES:
            return answer(415, f"expected a body of {' or '.join(BODY_TYPES)}")
        if first["type"] == "json_invalid":
            return answer(400, "the body is not valid JSON")
        place = ".".join(str(part) for part in first["loc"][1:])
        message = str(first["msg"]).removeprefix("Value error, ")
        return answer(422, f"{place}: {message}" if place else message)


def describe_status(error: HTTPException) -> str:
    """One line for an error of the framework."""
    known = STATUS_TEXTS.get(error.status_code)
    detail = error.detail if isinstance(error.detail, str) else ""
    return known or detail or HTTPStatus(error.status_code).phrase


def answer(
    status: int, message: str, retry_after: int | None = None, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """Make the answer of an error."""
    extra = dict(headers or {}) | ({} if retry_after is None else {"Retry-After": str(retry_after)})
    return JSONResponse({"error": printable(shorten(" ".join(message.split())))}, status, extra)
