"""Predictions for a whole store in shards: scored in parallel, and not repeated once they are written."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carat.data.store import Store, open_store
from carat.inference.predictor import Precision, Predictor, load
from carat.inference.writers import WRITERS, write_file
from carat.runs.folder import CARD
from carat.utils.errors import RunError
from carat.utils.files import replace_file, write_json
from carat.utils.locking import LOCK
from carat.utils.logging import logger
from carat.utils.output_folder import FolderKind, claim, has_key, plan_difference
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Engine, Report, TaskFunction

PLAN = "shards.json"
DONE = "done.jsonl"
PARTS = tuple(f"part-{'[0-9]' * digits}{ending}" for digits in range(5, 9) for ending in WRITERS)
"""Patterns of the names of shards."""
SIZE = 4096
"""Samples per shard."""

PREDICTIONS = FolderKind(
    name="prediction set",
    markers=(PLAN,),
    patterns=(DONE, *PARTS),
    recognizes=lambda folder: _has_parts(folder) or has_key(folder / PLAN, "store"),
    has_results=lambda folder: _has_parts(folder),
)
"""A folder of shards."""


@dataclass(frozen=True)
class Shard:
    """Samples that are written to one file."""

    number: int
    split: str
    start: int
    """Index of the first sample, among those of the split that can be scored."""
    stop: int
    """Index after the last sample."""


@dataclass(frozen=True)
class PredictionJob:
    """What all workers have in common."""

    run: Path
    store: Path
    out: Path
    ending: str
    precision: Precision


def predict_in_shards(
    run: str | os.PathLike[str],
    store: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str | None = None,
    ending: str = ".parquet",
    size: int = SIZE,
    workers: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    precision: Precision = "float32",
    overwrite: bool = False,
) -> int:
    """Score a store into a folder of files, `part-00000.parquet` and so on, in the store's order.

    The files do not depend on the engine or the number of workers. Each appears when it is complete; after an
    interruption the same call writes those that are missing. The shard of a worker that dies is given to
    another. Memory does not grow with the store.

    Args:
        run: folder of a finished run.
        store: folder of the data; for a cluster, like the others, where all its machines see it.
        out: folder to create or resume.
        split: of the store; all by default.
        ending: .parquet, .csv or .jsonl.
        size: samples per shard.
        workers: number of shards at a time.
        engine: processes of this machine, or Ray Data.
        address: of a Ray cluster; None starts one on this machine.
        precision: see `carat.inference.predictor.load`.
        overwrite: replace other predictions.

    Returns:
        Number of samples that were scored.

    Raises:
        RunError: the folder holds something else, another process works in it, or a shard failed.
        DataError: the store does not fit the run.
    """
    if ending not in WRITERS:
        raise RunError(f"unknown format '{ending}'; use {', '.join(WRITERS)}")
    job = PredictionJob(Path(run).resolve(), Path(store).resolve(), Path(out).resolve(), ending, precision)
    predictor, opened = load(run, "cpu", precision), open_store(store)
    opened.verify()
    for note in predictor.notes(opened, [split] if split else list(opened.manifest.splits)):
        logger.warning(f"note: {note}")
    shards = list(_cut(predictor, opened, split, size))
    plan = {
        "run": hashlib.sha256((job.run / CARD).read_bytes()).hexdigest(),
        "store": opened.manifest.fingerprint,
        "split": split,
        "size": size,
        "ending": ending,
        "precision": precision,
    }
    with claim(
        PREDICTIONS,
        job.out,
        overwrite=overwrite,
        difference=lambda: plan_difference(job.out / PLAN, plan),
    ):
        write_json(job.out / PLAN, plan)
        done = _read_done(job)
        _tidy(job, done)
        todo = [shard for shard in shards if shard.number not in done]
        if len(todo) < len(shards):
            logger.info(f"{len(shards) - len(todo)} of {len(shards)} shards are finished already")
        results = run_tasks(prepare_worker, (job,), todo, workers, engine=engine, address=address)
        with closing(results):
            for result in results:
                shard = todo[result.index]
                if result.problem:
                    raise RunError(f"{_file(job, shard.number)}: {result.problem}")
                done[shard.number] = result.result
                with (job.out / DONE).open("a", encoding="utf-8") as log:
                    log.write(_done_line(shard.number, result.result))
                logger.info(f"[{len(done)}/{len(shards)}] {_file(job, shard.number).name}")
    return sum(entry["samples"] for entry in done.values())


def _has_parts(folder: Path) -> bool:
    return any(folder.glob("part-[0-9]*"))


def _cut(predictor: Predictor, store: Store, split: str | None, size: int) -> Iterator[Shard]:
    number = 0
    for name in [split] if split else list(store.manifest.splits):
        count = len(predictor.rows(store, name))
        for start in range(0, count, size):
            yield Shard(number, name, start, min(start + size, count))
            number += 1


def _file(job: PredictionJob, number: int) -> Path:
    return job.out / f"part-{number:05}{job.ending}"


def _read_done(job: PredictionJob) -> dict[int, dict[str, Any]]:
    """The shards that were completed and not changed since, by number: samples and checksum."""
    done = {}
    try:
        lines = (job.out / DONE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        try:
            entry = json.loads(line)
            file = _file(job, entry.pop("shard"))
            unchanged = hashlib.sha256(file.read_bytes()).hexdigest() == entry["sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # the line is incomplete, or its file is missing
        if unchanged:
            done[int(file.stem.split("-")[1])] = entry
    return done


def _tidy(job: PredictionJob, done: dict[int, dict[str, Any]]) -> None:
    """Remove what a killed process left: incomplete and damaged shards, and lines about them."""
    kept = {PLAN, DONE, *(_file(job, number).name for number in done)}
    for path in job.out.iterdir():
        if path.is_file() and path.name not in kept and PREDICTIONS.owns(path.name) and path.name != LOCK:
            path.unlink()
    lines = [_done_line(number, entry) for number, entry in sorted(done.items())]
    replace_file(job.out / DONE, "".join(lines).encode())


def _done_line(number: int, entry: dict[str, Any]) -> str:
    return json.dumps({"shard": number} | entry) + "\n"


def prepare_worker(job: PredictionJob) -> TaskFunction:
    """Set up a worker that loads the run once, then scores shard after shard."""
    predictor, store = load(job.run, precision=job.precision), open_store(job.store)

    def work(shard: Shard, report: Report) -> dict[str, Any]:
        file = _file(job, shard.number)
        predictions = predictor.predict_rows(store, shard.split, shard.start, shard.stop)
        samples = write_file(predictions, file)
        return {"samples": samples, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    return work
