"""Scoring of many clips into a folder of tables, annotation files and pages."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from carat.inference.clips.options import ANNOTATIONS, CLIPS, REPORT, TABLE, ClipOptions
from carat.inference.clips.scoring import ClipScorer
from carat.inference.clips.timeline import Timeline
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.inference.writers import WRITERS, write_rows
from carat.utils.errors import CaratError, DataError
from carat.utils.files import write_json
from carat.utils.logging import logger
from carat.utils.output_folder import claim
from carat.utils.parallel.tasks import Engine


def score_clips(
    run: Predictor | str | os.PathLike[str],
    files: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    transcripts: Mapping[Path, Path] | None = None,
    options: ClipOptions | None = None,
    workers: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    overwrite: bool = False,
    on_clip: Callable[[Timeline], None] = lambda timeline: None,
) -> dict[str, Any]:
    """Score audio and video files into a folder. One that cannot be read does not stop the others.

    The folder gets `segments.csv`, `.jsonl` and `.parquet` with a row per segment of all clips; for each clip
    an ELAN `.eaf`, a Praat `.TextGrid`, a WebVTT `.vtt` and an HTML page; and `report.json`.

    Args:
        run: run, or a predictor.
        files: audio or video files.
        out: folder to write.
        transcripts: transcript file by media file; others are recognized.
        options: how clips are scored and written.
        workers: number of files from which features are extracted at a time.
        engine: processes of this machine, or Ray.
        address: address of a Ray cluster.
        overwrite: replace an existing folder.
        on_clip: called with the timeline of each clip.

    Returns:
        The report: name of the run, and for each file its summary, see `Timeline.summary`, or its problem.

    Raises:
        RunError: the folder exists, or the run cannot be used for clips.
        CaratError: no file can be scored.
        DataError: a package or a model is not installed.
    """
    options, given = options or ClipOptions(), transcripts or {}
    options.check()
    paths = list(dict.fromkeys(Path(file) for file in files))
    predictor = run if isinstance(run, Predictor) else load(run)
    scorer = ClipScorer(predictor, options.recognition, cache=options.cache)
    folder = Path(out)
    names = name_outputs(paths)
    rows: list[dict[str, Any]] = []
    report: dict[str, Any] = {"run": predictor.folder.name, "clips": []}
    with claim(CLIPS, folder, overwrite=overwrite):
        write_json(folder / REPORT, report)
        problems: Mapping[Path, str] = {}
        if options.cache and (workers > 1 or engine == "ray"):
            recognize = [path for path in paths if path not in given]
            problems = scorer.reader.prepare(
                paths, recognize=recognize, workers=workers, engine=engine, address=address
            )
        for path in paths:
            try:
                if path in problems:
                    raise DataError(problems[path])
                timeline = scorer.score(path, given.get(path), segments=options.segments, words=options.words)
                for suffix, write in ANNOTATIONS.items():
                    if suffix.removeprefix(".") in options.formats:
                        write(timeline, folder / f"{names[path]}{suffix}", media=options.media)
            except DataError as error:
                if len(paths) > 1:
                    logger.warning(f"note: {error}")
                report["clips"].append({"file": str(path), "problem": str(error)})
            else:
                report["clips"].append({"file": str(path), "output": names[path], **timeline.summary()})
                rows += ({"file": str(path), **row} for row in timeline.rows())
                on_clip(timeline)
            write_json(folder / REPORT, report)
        failed = [entry["problem"] for entry in report["clips"] if "problem" in entry]
        if len(failed) == len(paths):
            raise CaratError(failed[0] if len(paths) == 1 else f"no clip could be scored; first {failed[0]}")
        for suffix in WRITERS:
            if suffix.removeprefix(".") in options.formats and rows:
                write_rows(rows, folder / f"{TABLE}{suffix}")
    return report


def name_outputs(files: Sequence[Path]) -> dict[Path, str]:
    """Name the files of each clip, without extension: by its stem, unless another has the same.

    >>> list(name_outputs([Path("a.mp4"), Path("b.mp4"), Path("x/b.wav"), Path("y/b.wav")]).values())
    ['a', 'b', 'b.wav', 'b.wav-2']
    """
    names: dict[Path, str] = {}
    taken: set[str] = set()
    for file in files:
        choices = (file.stem, file.name, *(f"{file.name}-{i}" for i in range(2, len(files) + 2)))
        name = next(choice for choice in choices if choice.casefold() not in taken)
        taken.add(name.casefold())
        names[file] = name
    return names
