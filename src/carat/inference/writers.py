"""Predictions as a file (CSV, Parquet or JSON lines) or as a data frame."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carat.inference.prediction import Prediction
from carat.utils.errors import RunError
from carat.utils.files import unfinished_name
from carat.utils.output_folder import check_file
from carat.utils.tables import Table

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 1024
Named = tuple[str, Prediction]


def check_output(file: Path, overwrite: bool) -> None:
    """Refuse an output file that cannot or must not be written, before anything is scored.

    Raises:
        RunError: unknown ending, the file exists, or another process works in its folder.
    """
    if file.suffix not in WRITERS:
        raise RunError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(WRITERS)}")
    check_file(file, overwrite)


def write_predictions(predictions: Iterable[Named], file: Path, *, overwrite: bool = False) -> int:
    """Write predictions, in constant memory; the file appears when it is whole.

    Columns: `id`, `labels` (CSV: joined by ';'), then per label `score_<label>` and `attribution_<label>`; of
    texts also `text`, and `words_<label>` where words were asked for (as `labels`).

    Returns:
        How many were written.

    Raises:
        RunError: nothing to write, or see `check_output`.
    """
    check_output(file, overwrite)
    return write_file(predictions, file)


def write_file(predictions: Iterable[Named], file: Path) -> int:
    """As `write_predictions`, with an existing file replaced unasked."""
    stream = iter(predictions)
    first = list(islice(stream, 1))  # what is wrong with the data shows before a folder is made
    if not first:
        raise RunError(f"{file}: nothing to write, there are no samples")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(unfinished_name(file.name))
    try:
        count = WRITERS[file.suffix](chain(first, stream), temporary)
        with temporary.open("rb+") as opened:
            os.fsync(opened.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return count


def to_frame(predictions: Iterable[Prediction | Named]) -> pd.DataFrame:
    """Many predictions as a pandas data frame, one row per sample.

    Args:
        predictions: of one run, with or without ids, e.g. `Predictor.predict_store(…)` or
            `Predictor.predict_batch(…)`.

    Returns:
        Columns `id` where there are ids, `text` of texts, `labels` (lists), then per label
        `score_<label>`, `attribution_<label>` and, where words were asked for, `words_<label>` (lists).

    Raises:
        CaratError: pandas is not installed.

    Example:
        predictor = carat.load("demo-run")
        frame = carat.to_frame(predictor.predict_store(carat.open_store("demo-store"), "test"))
        frame.set_index("id")["score_happy"].nlargest(3)
    """
    records = []
    for item in predictions:
        row = as_row(*item) if isinstance(item, tuple) else as_row("", item)
        if not isinstance(item, tuple):
            del row["id"]
        records.append(row)
    return Table.from_records(records).to_frame()


def as_row(id: str, prediction: Prediction) -> dict[str, Any]:
    """One prediction as a flat row."""
    row: dict[str, Any] = {"id": id} | ({"text": prediction.text} if prediction.text else {})
    row["labels"] = prediction.labels
    row |= {f"score_{name}": score for name, score in prediction.scores.items()}
    row |= {f"attribution_{name}": modality for name, modality in prediction.attribution.items()}
    return row | {f"words_{name}": words for name, words in prediction.words.items()}


def _write_csv(predictions: Iterator[Named], file: Path) -> int:
    count = 0
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer: csv.DictWriter[str] | None = None
        for named in predictions:
            row = as_row(*named)
            row = {key: ";".join(x) if isinstance(x, list) else x for key, x in row.items()}
            if writer is None:
                writer = csv.DictWriter(opened, fieldnames=list(row))
                writer.writeheader()
            writer.writerow(row)
            count += 1
    return count


def _write_json_lines(predictions: Iterator[Named], file: Path) -> int:
    count = 0
    with file.open("w", encoding="utf-8") as opened:
        for named in predictions:
            opened.write(json.dumps(as_row(*named), ensure_ascii=False) + "\n")
            count += 1
    return count


def _write_parquet(predictions: Iterator[Named], file: Path) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    count = 0
    writer: pa.parquet.ParquetWriter | None = None
    try:
        while rows := [as_row(*named) for named in islice(predictions, CHUNK)]:
            if writer is None:
                kinds = {list: pa.list_(pa.string()), float: pa.float64(), str: pa.string()}
                fields = [(key, kinds[type(value)]) for key, value in rows[0].items()]
                writer = pa.parquet.ParquetWriter(file, pa.schema(fields))
            writer.write_table(pa.Table.from_pylist(rows, schema=writer.schema))
            count += len(rows)
    finally:
        if writer is not None:
            writer.close()
    return count


WRITERS: dict[str, Callable[[Iterator[Named], Path], int]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
}
