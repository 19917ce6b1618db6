"""Predictions of a whole store in shards: in parallel, and not repeated when they are there."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from carat.config.base import first_difference
from carat.data.store import open_store
from carat.inference.predictor import Precision, Predictor, load
from carat.inference.writers import WRITERS, write_predictions
from carat.runs.card import CARD, UNFINISHED, replace_file, write_json
from carat.utils.errors import RunError
from carat.utils.locking import LOCK, lock
from carat.utils.parallel import local
from carat.utils.parallel.tasks import Report, TaskFunction, TaskResult

PLAN = "shards.json"
DONE = "done.jsonl"
SIZE = 4096
"""Samples of a shard."""

Engine = Literal["local", "ray"]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Shard:
    """Samples that are scored together."""

    number: int
    split: str
    start: int
    """First of the split's samples that can be scored."""
    stop: int
    """Behind the last."""


@dataclass(frozen=True)
class Job:
    """What every worker must know."""

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
    say: Say = lambda line: None,
) -> int:
    """Score a store into a folder of files, `part-00000.parquet` and so on, in the store's order.

    The files do not depend on the engine or the number of workers. Each appears when it is whole; the same
    call, after an interruption, goes on with those that are missing. The task of a worker that dies is given
    to another. Memory does not grow with the store.

    Args:
        run: folder of a finished run.
        store: folder of the data; for a cluster, like the others, where all its machines see it.
        out: folder to make or to go on with.
        split: of the store; all by default.
        ending: .parquet, .csv or .jsonl.
        size: samples of a shard.
        workers: shards at a time.
        engine: processes of this machine, or Ray Data.
        address: of a Ray cluster; None starts one here.
        precision: see `carat.inference.predictor.load`.
        overwrite: start anew where other predictions were.
        say: called with lines of progress.

    Returns:
        How many samples were scored.

    Raises:
        RunError: the folder holds something else, or a shard could not be scored.
        DataError: the store does not fit the run.
    """
    if ending not in WRITERS:
        raise RunError(f"unknown format '{ending}'; use {', '.join(WRITERS)}")
    job = Job(Path(run).resolve(), Path(store).resolve(), Path(out).resolve(), ending, precision)
    predictor, opened = load(run, "cpu", precision), open_store(store)
    opened.verify()
    for note in predictor.notes(opened, [split] if split else list(opened.manifest.splits)):
        say(f"note: {note}")
    shards = list(_cut(predictor, opened, split, size))
    plan = {
        "run": hashlib.sha256((job.run / CARD).read_bytes()).hexdigest(),
        "store": opened.manifest.fingerprint,
        "split": split,
        "size": size,
        "ending": ending,
        "precision": precision,
    }
    job.out.mkdir(parents=True, exist_ok=True)
    with lock(job.out):
        done = _claim(job, plan, overwrite)
        todo = [shard for shard in shards if shard.number not in done]
        if len(todo) < len(shards):
            say(f"{len(shards) - len(todo)} of {len(shards)} shards are there already")
        for outcome in _run(job, todo, workers, engine, address):
            shard = todo[outcome.index]
            if outcome.problem:
                raise RunError(f"{_file(job, shard.number)}: {outcome.problem}")
            done[shard.number] = outcome.result
            with (job.out / DONE).open("a", encoding="utf-8") as opened_log:
                opened_log.write(json.dumps({"shard": shard.number} | outcome.result) + "\n")
            say(f"[{len(done)}/{len(shards)}] {_file(job, shard.number).name}")
    return sum(found["samples"] for found in done.values())


def _cut(predictor: Predictor, store: Any, split: str | None, size: int) -> Iterator[Shard]:
    number = 0
    for name in [split] if split else list(store.manifest.splits):
        count = len(predictor.rows(store, name))
        for start in range(0, count, size):
            yield Shard(number, name, start, min(start + size, count))
            number += 1


def _file(job: Job, number: int) -> Path:
    return job.out / f"part-{number:05}{job.ending}"


def _claim(job: Job, plan: dict[str, Any], overwrite: bool) -> dict[int, dict[str, Any]]:
    """What is done already, by shard: samples and digest; anything else is removed, or refused."""
    names = [path.name for path in job.out.iterdir() if path.name != LOCK]
    foreign = [
        name
        for name in sorted(names)
        if name not in (PLAN, DONE) and not name.startswith("part-") and not name.endswith(UNFINISHED)
    ]
    if foreign or (names and not {PLAN, f".{PLAN}{UNFINISHED}"} & set(names)):
        what = f"holds '{(foreign or sorted(names))[0]}', which was not made by this command"
        raise RunError(f"{job.out}: {what}; choose another folder")
    try:
        other = first_difference(json.loads((job.out / PLAN).read_text(encoding="utf-8")), plan)
    except (OSError, ValueError):
        other = "plan, which cannot be read"
    same = not other
    if not same and any(name.startswith("part-") for name in names) and not overwrite:
        raise RunError(f"{job.out}: holds predictions with another {other}; --overwrite replaces them")
    done = _read_done(job) if same and not overwrite else {}
    kept = {PLAN, DONE} | {_file(job, number).name for number in done} if done else set()
    for name in set(names) - kept:
        (job.out / name).unlink()
    write_json(job.out / PLAN, plan)
    lines = [json.dumps({"shard": number} | found) + "\n" for number, found in sorted(done.items())]
    replace_file(job.out / DONE, "".join(lines).encode())
    return done


def _read_done(job: Job) -> dict[int, dict[str, Any]]:
    """The shards that are what was written."""
    done = {}
    try:
        lines = (job.out / DONE).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        lines = []
    for line in lines:
        try:
            found = json.loads(line)
            file = _file(job, found.pop("shard"))
            whole = hashlib.sha256(file.read_bytes()).hexdigest() == found["sha256"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue  # torn, or its file is gone
        if whole:
            done[int(file.stem.split("-")[1])] = found
    return done


def prepare(job: Job) -> TaskFunction:
    """In every worker: load the run, then score shard after shard."""
    predictor, store = load(job.run, precision=job.precision), open_store(job.store)

    def work(shard: Shard, tell: Report) -> dict[str, Any]:
        file = _file(job, shard.number)
        found = predictor.predict_rows(store, shard.split, shard.start, shard.stop)
        samples = write_predictions(found, file, overwrite=True)
        return {"samples": samples, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}

    return work


def _run(
    job: Job, shards: list[Shard], workers: int, engine: Engine, address: str | None
) -> Iterator[TaskResult]:
    if engine == "local":
        yield from local.run_tasks(prepare, (job,), shards, workers)
        return
    from carat.utils.parallel import ray

    with ray.cluster(address, workers) as connected:
        yield from ray.map_tasks(connected, prepare, (job,), shards, workers)
