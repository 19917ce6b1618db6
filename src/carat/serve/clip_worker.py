"""The child process that scores clips: a crash of a decoder or a model in it does not reach the server."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from carat.serve.errors import hide_paths
from carat.serve.jobs import WORK
from carat.utils.errors import CaratError, DataError, is_out_of_memory
from carat.utils.parallel.child import exit_with_parent
from carat.utils.progress import Bar, use_bar

CSV_HEADER = "id,start,end,speaker,text,labels\r\n"
"""Table of a clip without segments."""
REPORT_SECONDS = 0.2
"""Minimum seconds between two reports of progress."""


@dataclass(frozen=True)
class ClipTask:
    """A clip to score.

    Args:
        folder: folder of the job, to which results are written.
        file: the clip.
        transcript: its transcript, if there is one.
        runs: names of runs.
        segments: see `Predictor.predict_clip`.
        words: see `Predictor.predict_text`.
    """

    folder: Path
    file: Path
    transcript: Path | None
    runs: tuple[str, ...]
    segments: str
    words: int


def result_file(folder: Path, index: int, format: str) -> Path:
    """File of the result of a job by its run with an index."""
    return folder / f"result-{index}.{format}"


def beside(clip: Path, suffix: str) -> Path:
    """A file beside a clip, to which it may refer, and never the clip itself."""
    return clip.with_name(clip.name + suffix) if clip.suffix == suffix else clip.with_suffix(suffix)


def main(
    folders: Mapping[str, str], options: Mapping[str, Any], max_seconds: float, pipe: Connection
) -> None:
    """Score clips until the server ends or closes the pipe.

    Args:
        folders: folder of each run by name.
        options: arguments of `carat.load`.
        max_seconds: largest length of a clip.
        pipe: receives tasks; sends ("progress", values) and at last ("finished", formats without a result
            and why) or ("failed", message).
    """
    exit_with_parent()
    os.nice(5)  # texts are answered first
    use_bar(lambda: PipeBar(pipe.send))
    scorers: dict[str, Any] = {}
    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        os.environ["CARAT_CACHE"] = str(task.folder / WORK)  # several runs share what is extracted
        names = {
            f"{task.folder}/": "",
            f"{task.file.parent}/": "",
            **{path: n for n, path in folders.items()},
        }
        try:
            answer: tuple[str, Any] = ("finished", score(task, folders, options, scorers, max_seconds))
        except CaratError as error:
            answer = ("failed", hide_paths(str(error), names))
        except Exception as error:
            reason = "out of memory" if is_out_of_memory(error) else f"unexpected {type(error).__name__}"
            answer = ("failed", f"{reason}; please report this fault of carat")
        pipe.send(answer)


def score(
    task: ClipTask,
    folders: Mapping[str, str],
    options: Mapping[str, Any],
    scorers: dict[str, Any],
    max_seconds: float,
) -> dict[str, str]:
    """Score a clip by all runs of a task.

    Args:
        task: the clip.
        folders: folder of each run by name.
        options: arguments of `carat.load`.
        scorers: runs that are loaded, to which others are added.
        max_seconds: largest length of a clip.

    Returns:
        Formats without a result, and why.

    Raises:
        CaratError: it cannot be scored.
    """
    from carat.features.media import Media
    from carat.inference.clips.scoring import ClipScorer
    from carat.inference.loading import load

    with Media(task.file) as media:
        duration = media.info.duration or 0.0
    if duration > max_seconds:
        raise DataError(f"{task.file}: {duration:.0f} s long, the limit is {max_seconds:.0f} s")
    unavailable: dict[str, str] = {}
    for index, name in enumerate(task.runs):
        if name not in scorers:
            scorers[name] = ClipScorer(load(folders[name], **options))
        timeline = scorers[name].score(task.file, task.transcript, segments=task.segments, words=task.words)
        unavailable |= write_results(timeline, task, index)
    return unavailable


def write_results(timeline: Any, task: ClipTask, index: int) -> dict[str, str]:
    """Write the results of a clip in all formats; returns those that cannot be written, and why."""
    from carat.inference.clips.options import ANNOTATIONS
    from carat.inference.writers import write_rows
    from carat.serve.timelines import to_result

    place = {f"{task.file.parent}/": ""}
    notes = [hide_paths(note, place) for note in (*timeline.clip.notes, *timeline.notes)]
    result = to_result(timeline, task.file.name, list(dict.fromkeys(notes)))
    result_file(task.folder, index, "json").write_text(result.model_dump_json(), encoding="utf-8")
    table = result_file(task.folder, index, "csv")
    if timeline.segments:
        write_rows(timeline.rows(), table)
    else:
        table.write_text(CSV_HEADER, encoding="utf-8", newline="")
    unavailable = {}
    for suffix, write in ANNOTATIONS.items():
        format = suffix.removeprefix(".")
        written = beside(task.file, suffix)
        try:
            write(timeline, written)
        except CaratError as error:
            unavailable[format] = hide_paths(str(error), place)
        else:
            written.replace(result_file(task.folder, index, format))
    return unavailable


class PipeBar(Bar):
    """Sends progress to the server.

    Args:
        send: sends a message.
    """

    def __init__(self, send: Callable[[tuple[str, dict[str, Any]]], None]) -> None:
        super().__init__()
        self._send = send
        self._step = ""
        self._total: int | None = None
        self._sent = 0.0

    def start(self, description: str, total: int | None) -> None:
        self._step, self._total = description, total
        self._report(0)

    def update(self, done: int, note: str = "") -> None:
        if time.monotonic() - self._sent >= REPORT_SECONDS:
            self._report(done)

    def _report(self, done: int) -> None:
        self._sent = time.monotonic()
        self._send(("progress", {"step": self._step, "done": done, "total": self._total}))
