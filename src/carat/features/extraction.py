"""Features of many media files, extracted into the cache in parallel: one task per file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from carat.features.cache import FeatureCache, cache_folder
from carat.features.description import Description
from carat.features.extractor import open_extractor
from carat.features.media import Media
from carat.utils.errors import DataError
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Engine, Report, TaskFunction
from carat.utils.progress import track

Work = Sequence[tuple[Description, Sequence[Path]]]
"""Descriptions of extraction, and the media files of each."""
Problems = Mapping[str, Mapping[Path, str]]
"""One-line problems of media files, by the `id` of the description."""


@dataclass(frozen=True)
class FileTask:
    """A media file and the descriptions of what is extracted from it, by `id`."""

    file: Path
    descriptions: tuple[str, ...]


def extract_all(
    work: Work, *, workers: int = 1, engine: Engine = "local", address: str | None = None
) -> Problems:
    """Extract the features that are not in the cache, in parallel.

    All features of a file are made by one worker, which opens the file once. A file that cannot be decoded
    does not stop the others. After an interruption, what is extracted is kept.

    Args:
        work: what is extracted, in this order for each file.
        workers: number of files at a time.
        engine: processes of this machine, or Ray.
        address: address of a Ray cluster.

    Returns:
        Problems of the files that failed.
    """
    descriptions = {description.id: description for description, _ in work}
    caches = {name: FeatureCache(description) for name, description in descriptions.items()}
    problems: dict[str, dict[Path, str]] = {name: {} for name in descriptions}
    pending: dict[Path, dict[str, None]] = {}
    for description, files in work:
        for file in files:
            try:
                if not caches[description.id].has(file):
                    pending.setdefault(file, {})[description.id] = None
            except DataError as error:
                problems[description.id][file] = str(error)
    tasks = [FileTask(file, tuple(names)) for file, names in pending.items()]
    if not tasks:
        return problems
    arguments = tuple(descriptions.values()), cache_folder()
    results = run_tasks(prepare_worker, arguments, tasks, workers, engine=engine, address=address)
    with closing(results):
        for result in track(results, "Extracting features", total=len(tasks)):
            task = tasks[result.index]
            if result.problem:  # of the file, or of a worker that made some of the features
                failed = [name for name in task.descriptions if not caches[name].has(task.file)]
                found = dict.fromkeys(failed, result.problem)
            else:
                found = result.result
            for name, problem in found.items():
                problems[name][task.file] = problem
    return problems


def prepare_worker(descriptions: Sequence[Description], folder: Path) -> TaskFunction:
    """Set up a worker process, which loads each extractor when it is first needed.

    Args:
        descriptions: what is extracted.
        folder: folder of the cache.

    Returns:
        function that extracts the features of one file, and returns problems by description.
    """
    caches = {description.id: FeatureCache(description, folder) for description in descriptions}

    def work(task: FileTask, report: Report) -> dict[str, str]:
        problems: dict[str, str] = {}
        with Media(task.file) as media:
            for name in task.descriptions:
                try:
                    caches[name].extract(open_extractor(caches[name].description), media)
                except DataError as error:
                    problems[name] = str(error)
        return problems

    return work
