"""Routes of the API for texts, features, runs, health and metrics."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, File, Form, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from carat.inference.features import absence_notes, read_features
from carat.serve.errors import ApiError
from carat.serve.schemas import (
    MAX_NAME,
    ErrorResponse,
    FeaturesResponse,
    Health,
    NamedPrediction,
    RunsResponse,
    TextRequest,
    TextResponse,
)
from carat.serve.served_run import FeaturesItem, ServedRun, TextItem
from carat.serve.settings import MEGABYTE, Limits
from carat.serve.state import State
from carat.serve.timelines import prediction_values
from carat.utils.errors import DataError
from carat.utils.version import version

ERRORS: dict[int | str, dict[str, Any]] = {
    400: {"model": ErrorResponse, "description": "The body is not valid, or the host name is unknown."},
    401: {"model": ErrorResponse, "description": "The token is missing or wrong."},
    403: {"model": ErrorResponse, "description": "The request comes from a page of another site."},
    404: {"model": ErrorResponse, "description": "There is no such run or job."},
    413: {"model": ErrorResponse, "description": "Larger or longer than the limit."},
    415: {"model": ErrorResponse, "description": "The body has another media type."},
    422: {"model": ErrorResponse, "description": "The input does not fit the run."},
    429: {"model": ErrorResponse, "description": "Too much waits; the header Retry-After says how long."},
    503: {"model": ErrorResponse, "description": "Not answered in time, or the server stops."},
}
"""Answers of all routes besides the result."""
UPLOAD = "upload.npz"


def make_router(state: State) -> APIRouter:
    """Make the routes of a server."""
    router = APIRouter(responses=ERRORS)
    limits = state.limits

    @router.post("/v1/predict/text", summary="Score texts")
    async def predict_text(request: TextRequest) -> TextResponse:
        run = state.run(request.run)
        item = TextItem(request.texts, request.words, request.conversations, request.speakers or ())
        check_length(item, limits)
        run.check_text(item)
        predictions = await state.score_texts(run, item)
        return TextResponse(run=run.name, thresholds=run.thresholds, predictions=predictions)

    @router.post("/v1/predict/features", summary="Score feature arrays")
    async def predict_features(
        file: Annotated[
            UploadFile,
            File(
                description="An `.npz` file with arrays (T, d) named `modality`, or `id/modality` for "
                "several samples."
            ),
        ],
        run: Annotated[str | None, Form(max_length=MAX_NAME, description="Name of the run.")] = None,
        raw: Annotated[
            bool | None,
            Form(
                description="Whether the features are as extracted, and are cleaned as those of the training "
                "store; must be given for runs that were trained on standardized features."
            ),
        ] = None,
    ) -> FeaturesResponse:
        chosen = state.run(run)
        item, notes = await run_in_threadpool(read_upload, file.file, chosen, raw, state)
        predictions = await state.score_features(chosen, item)
        named = [
            NamedPrediction(id=id, **prediction_values(prediction, NamedPrediction))
            for id, prediction in zip(item.samples, predictions, strict=True)
        ]
        return FeaturesResponse(run=chosen.name, thresholds=chosen.thresholds, predictions=named, notes=notes)

    @router.get("/v1/runs", summary="List runs")
    def runs() -> RunsResponse:
        return RunsResponse(runs=[run.info() for run in state.runs.values()])

    @router.get("/v1/health", summary="Whether the server answers; needs no token")
    async def health() -> Health:
        return Health(status="stopping" if state.is_stopping else "ok", version=version())

    @router.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    def metrics() -> Response:
        return state.metrics.response()

    return router


def check_length(item: TextItem, limits: Limits) -> None:
    """Check the number and length of texts.

    Raises:
        ApiError: there are more or longer ones than the limits allow (413).
    """
    longest = max(map(len, item.texts))
    for found, limit, what in (
        (len(item.texts), limits.max_texts, "texts"),
        (longest, limits.max_characters, "characters in a text"),
        (item.count_words() if item.words else 0, limits.max_words, "words with 'words'"),
    ):
        if found > limit:
            raise ApiError(413, f"{found} {what}, the limit is {limit}; send less at a time")


def read_upload(
    file: BinaryIO, run: ServedRun, raw: bool | None, state: State
) -> tuple[FeaturesItem, list[str]]:
    """Read and check an uploaded feature file.

    Args:
        file: the upload.
        run: run that scores it.
        raw: see `Predictor.predict`.
        state: limits, and the private folder for the file.

    Returns:
        Samples to score, and what the user should know.

    Raises:
        ApiError: it has more or larger arrays than the limits allow (413).
        DataError: it cannot be read, or does not fit the run.
    """
    limits = state.limits
    with tempfile.TemporaryDirectory(prefix="features-", dir=state.workspace) as folder:
        path = Path(folder) / UPLOAD
        with path.open("wb") as opened:
            shutil.copyfileobj(file, opened)
        check_archive(path, limits)
        try:
            samples = read_features(path)
        except DataError as error:
            raise DataError(str(error).replace(str(path), "the file")) from error
    if len(samples) > limits.max_samples:
        raise ApiError(413, f"{len(samples)} samples, the limit is {limits.max_samples}")
    samples = {("sample" if id == Path(UPLOAD).stem else id): x for id, x in samples.items()}
    item = run.read_samples(FeaturesItem(samples, raw))
    return item, absence_notes(samples.values(), item.samples.values())


def check_archive(path: Path, limits: Limits) -> None:
    """Check what an `.npz` file says that it unpacks to, before it is unpacked.

    Raises:
        ApiError: more than the limits allow (413).
        DataError: it is no such file.
    """
    if path.stat().st_size == 0:
        raise DataError("the file is empty (0 bytes)")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise DataError("the file is no .npz; save one with numpy.savez") from error
    size = sum(member.file_size for member in members)
    if size > limits.max_features_mb * MEGABYTE:
        raise ApiError(413, f"the arrays take {size} bytes, the limit is {limits.max_features_mb} MB")
    if len(members) > 8 * limits.max_samples:
        raise ApiError(413, f"{len(members)} arrays; send less at a time")
