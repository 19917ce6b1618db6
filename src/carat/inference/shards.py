"""Prediction of a whole store in shards: parallel, and resumable after an interruption."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carat.data.store import Store, open_store
from carat.data.store.store import open_unchanged
from carat.inference.loading import load
from carat.inference.predictor import Precision, Predictor
from carat.inference.writers import WRITERS, write_file
from carat.runs.folder import CARD
from carat.runs.locating import locate
from carat.utils.errors import RunError
from carat.utils.files import name_file, replace_file, unfinished_name, write_json
from carat.utils.logging import logger
from carat.utils.output_folder import FolderKind, claim, has_key, plan_difference
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Engine, Report, TaskFunction
from carat.utils.reading import hash_file, parse_json, read_text

PLAN = "shards.json"
DONE = "done.jsonl"
PARTS = tuple(f"part-{'[0-9]' * digits}{ending}" for digits in range(5, 9) for ending in WRITERS)
"""Glob patterns of shard files."""
SIZE = 4096
"""Default number of samples per shard."""

PREDICTIONS = FolderKind(
    name="prediction set",
    markers=(PLAN,),
    patterns=(DONE, *PARTS),
    recognizes=lambda folder: has_key(folder / PLAN, "store"),
    has_results=lambda folder: _has_parts(folder),
)
"""A folder of shards."""


@dataclass(frozen=True)
class Shard:
    """Contiguous samples of a split that are written to one file."""

    number: int
    split: str
    start: int
    """Index of the first sample, in `Predictor.rows`."""
    stop: int
    """Index of the last sample, exclusive."""


@dataclass(frozen=True)
class PredictionJob:
    """Settings shared by all workers."""

    run: Path
    store: Path
    out: Path
    ending: str
    options: Mapping[str, Any]
    """Arguments of `carat.load`."""
    card: str
    """SHA-256 of the card of the run."""
    fingerprint: str
    """Fingerprint of the store."""


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
    calibrated: bool = True,
    risk: float | None = None,
    false_discovery: float | None = None,
    overwrite: bool = False,
) -> int:
    """Score a store into a folder of files `part-00000.parquet`, …, in the order of the store.

    The files do not depend on the engine or the number of workers. They are written atomically; after an
    interruption the same call writes the missing ones. If a worker dies, its shard is retried by another.
    Memory use is independent of the size of the store.

    Args:
        run: folder of a finished run.
        store: folder of the store; on a cluster, all folders must be on a shared file system.
        out: folder to create or resume.
        split: split to score; defaults to all.
        ending: file extension: .parquet, .csv or .jsonl.
        size: samples per shard.
        workers: number of shards scored in parallel.
        engine: "local" for processes of this machine, "ray" for Ray Data.
        address: address of a Ray cluster; defaults to one started on this machine.
        precision: arithmetic of the forward pass, see `carat.load`.
        calibrated: see `carat.load`.
        risk: see `carat.load`.
        false_discovery: see `carat.load`.
        overwrite: replace predictions of other settings.

    Returns:
        Number of samples scored, including those of earlier calls.

    Raises:
        RunError: the folder holds something else, another process is writing to it, or a shard failed.
        DataError: the store does not fit the run.
    """
    if ending not in WRITERS:
        raise RunError(f"unknown format '{ending}'; use {', '.join(WRITERS)}")
    run = locate(run)
    scale = {"calibrated": calibrated, "risk": risk, "false_discovery": false_discovery}
    changed = {name: x for name, x in scale.items() if x is not None and x is not True}
    options: dict[str, Any] = {"precision": precision, **changed}
    digest, predictor, opened = (
        hash_file(run / CARD, RunError),
        load(run, "cpu", **options),
        open_store(store),
    )
    paths = run.resolve(), Path(store).resolve(), Path(out).resolve()
    job = PredictionJob(*paths, ending, options, digest, opened.manifest.fingerprint)
    opened.verify()
    notes = predictor.notes(opened, [split] if split else list(opened.manifest.splits))
    for note in [*notes, *predictor.scale.guarantee()]:
        logger.warning(f"note: {note}")
    shards = list(_make_shards(predictor, opened, split, size))
    plan = {
        "run": job.card,
        "store": job.fingerprint,
        "split": split,
        "size": size,
        "ending": ending,
        **options,
    }
    with claim(
        PREDICTIONS,
        job.out,
        overwrite=overwrite,
        difference=lambda: plan_difference(job.out / PLAN, plan),
    ):
        write_json(job.out / PLAN, plan)
        done = _read_done(job, shards)
        _clean_up(job, done, len(shards))
        pending = [shard for shard in shards if shard.number not in done]
        if len(pending) < len(shards):
            logger.info(f"{len(shards) - len(pending)} of {len(shards)} shards already finished")
        results = run_tasks(prepare_worker, (job,), pending, workers, engine=engine, address=address)
        with closing(results):
            for result in results:
                shard = pending[result.index]
                if result.problem:
                    raise RunError(f"{_shard_file(job, shard.number)}: {result.problem}")
                done[shard.number] = result.result
                with name_file(job.out / DONE), (job.out / DONE).open("a", encoding="utf-8") as log:
                    log.write(_done_line(shard.number, result.result))
                logger.info(f"[{len(done)}/{len(shards)}] {_shard_file(job, shard.number).name}")
    return sum(entry["samples"] for entry in done.values())


def _has_parts(folder: Path) -> bool:
    return any(folder.glob("part-[0-9]*"))


def _make_shards(predictor: Predictor, store: Store, split: str | None, size: int) -> Iterator[Shard]:
    number = 0
    for name in [split] if split else list(store.manifest.splits):
        count = len(predictor.rows(store, name))
        for start in range(0, count, size):
            yield Shard(number, name, start, min(start + size, count))
            number += 1


def _shard_file(job: PredictionJob, number: int) -> Path:
    return job.out / f"part-{number:05}{job.ending}"


def _read_done(job: PredictionJob, shards: Sequence[Shard]) -> dict[int, dict[str, Any]]:
    """Read the log of finished shards: number of samples and checksum by number, if the file is intact."""
    done = {}
    by_number = {shard.number: shard for shard in shards}
    try:
        lines = read_text(job.out / DONE, RunError).splitlines()
    except RunError:
        lines = []
    for line in lines:
        try:
            entry = parse_json(line, DONE, RunError)
            shard = by_number[entry["shard"]]
            samples = shard.stop - shard.start
            intact = hash_file(_shard_file(job, shard.number), RunError) == entry["sha256"]
            if intact and entry["samples"] == samples:
                done[shard.number] = {"samples": samples, "sha256": entry["sha256"]}
        except (RunError, KeyError, TypeError):
            continue  # the line is incomplete, or its file is missing
    return done


def _clean_up(job: PredictionJob, done: dict[int, dict[str, Any]], count: int) -> None:
    """Delete incomplete and corrupt shards of an interrupted process, and their lines in the log."""
    for number in range(count):
        file = _shard_file(job, number)
        file.with_name(unfinished_name(file.name)).unlink(missing_ok=True)
        if number not in done:
            file.unlink(missing_ok=True)
    lines = [_done_line(number, entry) for number, entry in sorted(done.items())]
    replace_file(job.out / DONE, "".join(lines).encode())


def _done_line(number: int, entry: dict[str, Any]) -> str:
    return json.dumps({"shard": number} | entry) + "\n"


def prepare_worker(job: PredictionJob) -> TaskFunction:
    """Load the run once per worker process; the returned function scores one shard."""
    predictor, store = load(job.run, **job.options), open_unchanged(job.store, job.fingerprint)
    if hash_file(job.run / CARD, RunError) != job.card:
        raise RunError(f"{job.run}: replaced while in use; rerun the command")

    def work(shard: Shard, report: Report) -> dict[str, Any]:
        file = _shard_file(job, shard.number)
        predictions = predictor.predict_rows(store, shard.split, shard.start, shard.stop)
        samples = write_file(predictions, file)
        return {"samples": samples, "sha256": hash_file(file, RunError)}

    return work
