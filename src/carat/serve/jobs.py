"""Jobs: clips that are scored, each in a private folder, whose state any process of the server can read."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from carat.serve.errors import ApiError
from carat.serve.schemas import JobStatus

STATUS, CANCEL, MEDIA, WORK = "status.json", "cancel", "media", "work"
"""Names in the folder of a job: its state, a request to cancel it, the upload, and what is computed of it."""
ID = re.compile(r"[\w-]{22}", re.ASCII)
ACTIVE = frozenset({"queued", "running"})
UNSAFE = re.compile(r"[^\w .()+,=@#-]")
MAX_NAME = 100


class Job(JobStatus):
    """A job with what only the server needs."""

    owner: int
    """Process that scores it."""
    created: float
    """Seconds since 1970."""
    segments: str = "auto"
    words: int = 3
    transcript: str = ""
    """Name of the transcript; empty if speech is recognized."""

    @property
    def is_active(self) -> bool:
        """Whether it waits or is being scored."""
        return self.state in ACTIVE

    def public(self) -> JobStatus:
        """What clients are told."""
        return JobStatus(**{name: getattr(self, name) for name in JobStatus.model_fields})


class Jobs:
    """The jobs of a server.

    Args:
        folder: private folder.
        keep_seconds: time after which results are deleted.
    """

    def __init__(self, folder: Path, keep_seconds: float) -> None:
        self._folder, self._keep_seconds = folder, keep_seconds

    def create(self, file: str, runs: Sequence[str], transcript: str = "", **values: Any) -> Job:
        """Create a job that waits, with an empty folder for its upload.

        Args:
            file: name of the clip, as the client gave it.
            runs: names of runs.
            transcript: name of the transcript; empty if there is none.
            values: further fields of `Job`.
        """
        id = secrets.token_urlsafe(16)
        job = Job(
            id=id,
            state="queued",
            file=safe_name(file, "clip"),
            runs=list(runs),
            owner=os.getpid(),
            created=time.time(),
            expires=time.time() + self._keep_seconds,
            transcript=transcript and f"transcript{Path(safe_name(transcript, '.txt')).suffix}",
            **values,
        )
        for name in (MEDIA, WORK):
            (self.folder(id) / name).mkdir(parents=True, mode=0o700)
        self.write(job)
        return job

    def folder(self, id: str) -> Path:
        """Folder of a job.

        Raises:
            ApiError: the ID is not one of a job.
        """
        if not ID.fullmatch(id):
            raise ApiError(404, "no such job; its result may have expired")
        return self._folder / id

    def media(self, job: Job) -> Path:
        """The uploaded clip."""
        return self.folder(job.id) / MEDIA / job.file

    def read(self, id: str) -> Job:
        """Read the state of a job.

        Raises:
            ApiError: there is no such job, or it was deleted.
        """
        try:
            job = Job.model_validate_json((self.folder(id) / STATUS).read_bytes())
        except (OSError, ValidationError) as error:
            raise ApiError(404, "no such job; its result may have expired") from error
        if job.is_active and not _is_alive(job.owner):
            return job.model_copy(update={"state": "failed", "error": "the server process of the job ended"})
        return job

    def write(self, job: Job) -> None:
        """Write the state of a job, unless the job was deleted."""
        file = self.folder(job.id) / STATUS
        temporary = file.with_suffix(".new")
        try:
            temporary.write_text(job.model_dump_json(), encoding="utf-8")
            temporary.replace(file)
        except FileNotFoundError:
            return

    def finish(self, job: Job, state: str, error: str = "", **values: Any) -> None:
        """Set the final state of a job, and delete its upload.

        Args:
            job: job.
            state: "finished", "failed" or "cancelled".
            error: why it failed.
            values: further fields of `Job`.
        """
        folder = self.folder(job.id)
        if not (folder / STATUS).exists():  # deleted; the child may have written into it since
            shutil.rmtree(folder, ignore_errors=True)
            return
        for name in (MEDIA, WORK):
            shutil.rmtree(folder / name, ignore_errors=True)
        expires = time.time() + self._keep_seconds
        update = {"state": state, "error": error, "progress": None, "expires": expires, **values}
        self.write(job.model_copy(update=update))

    def is_cancelled(self, job: Job) -> bool:
        """Whether someone asked to cancel a job, or deleted it."""
        folder = self.folder(job.id)
        return (folder / CANCEL).exists() or not (folder / STATUS).exists()

    def cancel(self, id: str) -> None:
        """Ask the process that scores a job to cancel it; one that is finished stays as it is."""
        if self.read(id).is_active:
            (self.folder(id) / CANCEL).touch()

    def delete(self, id: str) -> None:
        """Cancel a job, and delete it with its upload and results."""
        self.read(id)
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def all(self) -> Iterator[Job]:
        """All jobs, in no order."""
        for folder in self._folder.iterdir():
            if ID.fullmatch(folder.name):
                try:
                    yield self.read(folder.name)
                except ApiError:  # deleted meanwhile
                    continue

    def remove_expired(self, now: float) -> None:
        """Delete the jobs whose time has come; one that is being scored stays until it ends."""
        for job in self.all():
            if not job.is_active and job.expires is not None and job.expires <= now:
                shutil.rmtree(self.folder(job.id), ignore_errors=True)


def safe_name(name: str, default: str) -> str:
    """A name that is safe in a folder of its own: no path, no hidden file, no control characters.

    >>> safe_name("../../etc/pass wd.mp4", "clip"), safe_name("..", "clip"), safe_name("a<b>.wav", "clip")
    ('pass wd.mp4', 'clip', 'a_b_.wav')
    """
    last = UNSAFE.sub("_", name.replace("\\", "/").rpartition("/")[2]).strip(" .")
    stem, suffix = Path(last).stem, Path(last).suffix[:12]
    while len((stem + suffix).encode()) > MAX_NAME:
        stem = stem[:-1]
    return (stem + suffix) or default


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
