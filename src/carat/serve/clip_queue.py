"""The queue of clips of a server process: one at a time is scored in a child process."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from carat.serve.clip_worker import ClipTask
from carat.serve.jobs import WORK, Job, Jobs
from carat.serve.schemas import Progress
from carat.utils.parallel.child import Child, describe_exit, end_children, start_child

POLL_SECONDS = 0.2
"""Seconds between two looks at whether a job was cancelled."""
SHUT_DOWN = "the server was shut down"


class ClipQueue:
    """Scores the clips of jobs, in the order of their arrival.

    Args:
        jobs: the jobs of the server.
        target: function of the child process, see `carat.serve.clip_worker.main`.
        arguments: its arguments, without the pipe.
        job_seconds: time after which a job fails.
    """

    def __init__(
        self, jobs: Jobs, target: Callable[..., None], arguments: tuple[Any, ...], job_seconds: float
    ) -> None:
        self._jobs, self._target, self._arguments, self._job_seconds = jobs, target, arguments, job_seconds
        self._waiting: asyncio.Queue[Job] = asyncio.Queue()
        self._current: Job | None = None
        self._child: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="clips")

    def start(self) -> None:
        """Start to work on jobs; called once, in the event loop."""
        self._task = asyncio.create_task(self._work())

    def submit(self, job: Job) -> None:
        """Add a job whose upload is complete."""
        self._waiting.put_nowait(job)

    async def stop(self) -> None:
        """Fail the jobs that are not finished, and end the child."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        unfinished = [self._current] if self._current is not None else []
        while not self._waiting.empty():
            unfinished.append(self._waiting.get_nowait())
        for job in unfinished:
            self._jobs.finish(job, "failed", SHUT_DOWN)
        self._threads.shutdown()  # waits for a child that is being started
        self._end_child()

    async def _work(self) -> None:
        while True:
            self._current = await self._waiting.get()
            try:
                state, error, values = await self._perform(self._current)
            except Exception as fault:  # such as no memory for another process
                state, error, values = "failed", f"unexpected {type(fault).__name__}", {}
            self._jobs.finish(self._current, state, error, **values)
            self._current = None

    async def _perform(self, job: Job) -> tuple[str, str, dict[str, Any]]:
        """Score a clip; returns the final state of the job, why it failed, and further fields of it."""
        if self._jobs.is_cancelled(job):
            return "cancelled", "", {}
        job = job.model_copy(update={"state": "running", "progress": Progress(step="starting")})
        self._jobs.write(job)
        loop = asyncio.get_running_loop()
        child = await loop.run_in_executor(self._threads, self._open_child)
        folder = self._jobs.folder(job.id)
        transcript = folder / WORK / job.transcript if job.transcript else None
        media = self._jobs.media(job)
        with contextlib.suppress(OSError):  # it has ended, which is found below
            child.pipe.send(ClipTask(folder, media, transcript, tuple(job.runs), job.segments, job.words))
        deadline = time.monotonic() + self._job_seconds
        while True:
            kind, content = await loop.run_in_executor(self._threads, _receive, child)
            if kind == "finished":
                return "finished", "", {"unavailable": content}
            if kind == "failed":
                return "failed", content, {}
            if kind == "progress":
                self._jobs.write(job.model_copy(update={"progress": Progress(**content)}))
            problem = ""
            if kind == "ended":
                await loop.run_in_executor(self._threads, self._end_child, 2.0)
                return (
                    "failed",
                    f"the process that scored the clip {describe_exit(child.process.exitcode)}",
                    {},
                )
            if time.monotonic() > deadline:
                problem = f"took longer than {self._job_seconds:g} s"
            if problem or self._jobs.is_cancelled(job):
                await loop.run_in_executor(self._threads, self._end_child)
                return ("failed", problem, {}) if problem else ("cancelled", "", {})

    def _open_child(self) -> Child:
        if self._child is not None and not self._child.process.is_alive():
            self._end_child()
        if self._child is None:
            self._child = start_child(self._target, *self._arguments, name="clips")
        return self._child

    def _end_child(self, patience: float = 0.0) -> None:
        if self._child is not None:
            self._child.pipe.close()
            end_children([self._child], patience)
            self._child = None


def _receive(child: Child) -> tuple[str, Any]:
    """The next message; "nothing" if there is none for a while, "ended" if the child has."""
    try:
        if child.pipe.poll(POLL_SECONDS):
            message: tuple[str, Any] = child.pipe.recv()
            return message
    except (EOFError, OSError):
        return "ended", None
    return ("nothing", None) if child.process.is_alive() else ("ended", None)
