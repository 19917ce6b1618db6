"""Routes of the API for clips: upload, state, progress, result, cancel and delete."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, File, Form, Request, UploadFile
from starlette.concurrency import run_in_threadpool
from starlette.responses import FileResponse, Response, StreamingResponse

from carat.features.segments import parse_segmentation
from carat.features.transcript_files import READERS
from carat.serve.clip_worker import result_file
from carat.serve.errors import ApiError
from carat.serve.jobs import WORK, Job, safe_name
from carat.serve.routes import ERRORS
from carat.serve.schemas import FORMATS, MAX_NAME, Format, JobStatus
from carat.serve.state import State
from carat.serve.timelines import TimelineResult
from carat.utils.errors import DataError, RunError

RETRY_SECONDS = 10
"""Seconds after which a client may try again when too many clips wait."""
LOOK_SECONDS = 0.25
"""Seconds between two looks at the state of a job for its events."""
ALIVE_SECONDS = 15.0
"""Seconds after which an event is sent though nothing changed, so that proxies keep the connection."""
MAX_RUNS = 4
"""Largest number of runs that score a clip."""


def make_clip_router(state: State) -> APIRouter:
    """Make the routes of a server for clips."""
    router = APIRouter(responses=ERRORS)
    jobs, limits = state.jobs, state.limits

    @router.post(
        "/v1/predict/clip",
        status_code=202,
        summary="Upload a clip to be scored",
    )
    async def predict_clip(
        file: Annotated[UploadFile, File(description="Audio or video file.")],
        transcript: Annotated[
            UploadFile | None,
            File(description=f"Its transcript ({', '.join(READERS)}); by default, speech is recognized."),
        ] = None,
        run: Annotated[
            list[str] | None, Form(description="Names of runs; defaults to the first one.")
        ] = None,
        segments: Annotated[
            str,
            Form(max_length=40, description='"auto", "vad", "transcript", "whole" or "seconds=N".'),
        ] = "auto",
        words: Annotated[int, Form(ge=0, le=100, description="As for texts.")] = 3,
    ) -> JobStatus:
        names = choose_runs(state, run or [])
        check_options(segments, transcript)
        if state.is_stopping:
            raise ApiError(503, "the server stops")
        if state.count_active_jobs() >= limits.max_jobs:
            raise ApiError(429, "too many clips wait; try again later", RETRY_SECONDS)
        job = jobs.create(
            file.filename or "",
            names,
            (transcript.filename or "") if transcript is not None else "",
            segments=segments,
            words=words,
        )
        try:
            await run_in_threadpool(_save, file.file, jobs.media(job))
            if transcript is not None:
                await run_in_threadpool(_save, transcript.file, jobs.folder(job.id) / WORK / job.transcript)
        except BaseException:
            jobs.delete(job.id)
            raise
        state.clips.submit(job)
        return job.public()

    @router.get("/v1/jobs/{id}", summary="State of a clip")
    def read_job(id: str) -> JobStatus:
        return jobs.read(id).public()

    @router.get(
        "/v1/jobs/{id}/events",
        summary="State of a clip as server-sent events, until it is final",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Events named `status`."}},
    )
    async def follow_job(id: str, request: Request) -> StreamingResponse:
        jobs.read(id)  # an error is no stream
        return StreamingResponse(_events(state, id, request), media_type="text/event-stream")

    @router.get(
        "/v1/jobs/{id}/result/{format}",
        summary="Result of a clip",
        response_class=FileResponse,
        responses={
            200: {
                "model": TimelineResult,
                "content": {kind.partition(";")[0]: {} for kind in FORMATS.values()},
                "description": "The result as a file.",
            }
        },
    )
    def read_result(id: str, format: Format, run: str | None = None) -> FileResponse:
        job = jobs.read(id)
        if job.is_active:
            raise ApiError(404, f"no result yet: the clip is {job.state}", RETRY_SECONDS)
        index = _index(job, run)
        if format in job.unavailable:
            raise ApiError(404, job.unavailable[format])
        file = result_file(jobs.folder(id), index, format)
        if not file.is_file():
            raise ApiError(404, f"no result: the clip {job.state}" + (f", {job.error}" if job.error else ""))
        suffix = f"-{safe_name(job.runs[index], 'run')}" if len(job.runs) > 1 else ""
        name = f"{Path(job.file).stem}{suffix}.{format}"
        return FileResponse(file, media_type=FORMATS[format], filename=name)

    @router.post("/v1/jobs/{id}/cancel", summary="Cancel a clip; one that is finished stays as it is")
    def cancel_job(id: str) -> JobStatus:
        jobs.cancel(id)
        return jobs.read(id).public()

    @router.delete(
        "/v1/jobs/{id}",
        status_code=204,
        summary="Cancel a clip, and delete its upload and results",
        response_class=Response,
    )
    def delete_job(id: str) -> Response:
        jobs.delete(id)
        return Response(status_code=204)

    return router


def make_refusing_router(problem: str) -> APIRouter:
    """Make the route of a server that scores no clips; uploads are refused before they are read."""
    router = APIRouter(responses=ERRORS)

    @router.post("/v1/predict/clip", summary="Refused: this server scores no clips", response_class=Response)
    async def refuse_clip() -> Response:
        raise ApiError(422, problem)

    return router


def choose_runs(state: State, names: Sequence[str]) -> list[str]:
    """Names of the runs that score a clip; the first run that can if none is named.

    Raises:
        ApiError: there is no such run.
        RunError: a run cannot score clips.
    """
    if len(names) > MAX_RUNS or any(len(name) > MAX_NAME for name in names):
        raise ApiError(413, f"{len(names)} runs, the limit is {MAX_RUNS}")
    usable = [name for name, run in state.runs.items() if not run.clip_problem]
    chosen = [state.run(name) for name in dict.fromkeys(names)] or [state.run(next(iter(usable), None))]
    for run in chosen:
        if run.clip_problem:
            raise RunError(run.clip_problem)
    return [run.name for run in chosen]


def check_options(segments: str, transcript: UploadFile | None) -> None:
    """Check the options of a clip before it waits.

    Raises:
        DataError: unknown segments, or an unknown kind of transcript.
    """
    parse_segmentation(segments)
    if transcript is not None:
        suffix = Path(safe_name(transcript.filename or "", "")).suffix.lower()
        if suffix not in READERS:
            raise DataError(f"unknown kind of transcript '{suffix}', expected {', '.join(READERS)}")


def _save(upload: BinaryIO, file: Path) -> None:
    with file.open("xb") as opened:
        shutil.copyfileobj(upload, opened, 1 << 20)


def _index(job: Job, run: str | None) -> int:
    if run is None:
        return 0
    if run not in job.runs:
        raise ApiError(404, f"the clip is not scored by '{run}'")
    return job.runs.index(run)


async def _events(state: State, id: str, request: Request) -> AsyncIterator[str]:
    """The state of a job whenever it changes, until it is final or the client has gone."""
    sent, silent = "", 0.0
    while True:
        try:
            job = state.jobs.read(id)
        except ApiError:  # deleted
            yield "event: deleted\ndata: {}\n\n"
            return
        if state.is_stopping and job.is_active:
            job = job.model_copy(update={"state": "failed", "error": "the server was shut down"})
        text = job.public().model_dump_json()
        if text != sent:
            sent, silent = text, 0.0
            yield f"event: status\ndata: {text}\n\n"
        elif silent >= ALIVE_SECONDS:
            silent = 0.0
            yield ": waiting\n\n"
        if not job.is_active or await request.is_disconnected():
            return
        await asyncio.sleep(LOOK_SECONDS)
        silent += LOOK_SECONDS
