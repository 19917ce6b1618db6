"""Predictions as a file (CSV, Parquet or JSON lines) or as a data frame."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from carat.inference.prediction import Prediction
from carat.utils.errors import RunError
from carat.utils.files import write_file as replacement_of
from carat.utils.output_folder import check_file
from carat.utils.tables import Table, csv_cell

if TYPE_CHECKING:
    import pandas as pd

CHUNK = 1024
"""Rows per row group of a Parquet file."""
Named = tuple[str, Prediction]
"""Sample ID and prediction."""
Row = Mapping[str, Any]


def check_output(file: Path, overwrite: bool) -> None:
    """Check that an output file can be written, before anything is scored.

    Args:
        file: file to write.
        overwrite: allow the file to exist.

    Raises:
        RunError: unknown file extension, the file exists, or another process is writing to its folder.
    """
    if file.suffix not in WRITERS:
        raise RunError(f"{file}: unknown ending '{file.suffix}'; use {', '.join(WRITERS)}")
    check_file(file, overwrite)


def write_predictions(predictions: Iterable[Named], file: Path, *, overwrite: bool = False) -> int:
    """Write predictions as a stream, atomically.

    Columns: `id`, `text` (of texts), `labels`, then `score_<label>`, `attribution_<label>` and, if requested,
    `decision_<label>` and `words_<label>` for each label; `notes` on unusual inputs. CSV joins lists by ";",
    and marks texts that a spreadsheet would calculate, see `carat.utils.tables.csv_cell`.

    Args:
        predictions: sample IDs and predictions.
        file: file to write: .csv, .parquet or .jsonl.
        overwrite: replace an existing file.

    Returns:
        Number of predictions written.

    Raises:
        RunError: there are no predictions, or see `check_output`.
    """
    check_output(file, overwrite)
    return write_file(predictions, file)


def write_file(predictions: Iterable[Named], file: Path) -> int:
    """Write predictions as `write_predictions` does, replacing an existing file."""
    return write_rows((as_row(*named) for named in predictions), file)


def write_rows(rows: Iterable[Row], file: Path) -> int:
    """Write rows with equal keys, replacing an existing file.

    Args:
        rows: rows whose values are strings, numbers or lists of strings.
        file: file to write: .csv, .parquet or .jsonl.

    Returns:
        Number of rows written.

    Raises:
        RunError: there are no rows.
    """
    stream = iter(rows)
    first = list(islice(stream, 1))  # errors in the data are raised before a folder is created
    if not first:
        raise RunError(f"{file}: no samples to write")
    with replacement_of(file) as opened:
        return WRITERS[file.suffix](chain(first, stream), opened)


def to_frame(predictions: Iterable[Prediction | Named]) -> pd.DataFrame:
    """Convert predictions to a pandas DataFrame, one row per sample.

    Args:
        predictions: predictions of one run, with or without IDs, e.g. `Predictor.predict_store(…)` or
            `Predictor.predict_batch(…)`.

    Returns:
        Columns `id` (if given), `text` (of texts), `labels` (lists), then `score_<label>`,
        `attribution_<label>` and, if requested, `decision_<label>` and `words_<label>` (lists) for each
        label.

    Raises:
        CaratError: pandas is not installed.

    Example:
        predictor = carat.load("demo-run")
        frame = carat.to_frame(predictor.predict_store(carat.open_store("demo-store"), "test"))
        frame.set_index("id")["score_happy"].nlargest(3)
    """
    records = []
    for item in predictions:
        if isinstance(item, tuple):
            records.append(as_row(*item))
        else:
            row = as_row("", item)
            del row["id"]
            records.append(row)
    table = Table.from_records(records) if records else Table(["labels"], [])
    return table.to_frame()


def as_row(id: str, prediction: Prediction) -> dict[str, Any]:
    """Flatten a prediction to a row."""
    row: dict[str, Any] = {"id": id} | ({"text": prediction.text} if prediction.text else {})
    row["labels"] = prediction.labels
    row |= {f"score_{name}": score for name, score in prediction.scores.items()}
    row |= {f"attribution_{name}": modality for name, modality in prediction.attribution.items()}
    row |= {f"decision_{name}": decision for name, decision in prediction.decisions.items()}
    row |= {} if prediction.notes is None else {"notes": prediction.notes}
    return row | {f"words_{name}": words for name, words in prediction.words.items()}


def _write_csv(rows: Iterator[Row], file: BinaryIO) -> int:
    count = 0
    text = io.TextIOWrapper(file, encoding="utf-8", newline="")
    writer = csv.writer(text)
    for row in rows:
        if not count:
            writer.writerow([csv_cell(key) for key in row])
        cells = (";".join(x) if isinstance(x, list) else x for x in row.values())
        writer.writerow([csv_cell(cell) for cell in cells])
        count += 1
    text.detach()  # flushes, and leaves the file open
    return count


def _write_json_lines(rows: Iterator[Row], file: BinaryIO) -> int:
    count = 0
    for row in rows:
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        count += 1
    return count


def _write_parquet(rows: Iterator[Row], file: BinaryIO) -> int:
    import pyarrow as pa
    import pyarrow.parquet

    count = 0
    writer: pa.parquet.ParquetWriter | None = None
    try:
        while chunk := list(islice(rows, CHUNK)):
            if writer is None:
                types = {list: pa.list_(pa.string()), float: pa.float64(), str: pa.string()}
                fields = [(key, types[type(value)]) for key, value in chunk[0].items()]
                writer = pa.parquet.ParquetWriter(file, pa.schema(fields))
            writer.write_table(pa.Table.from_pylist(chunk, schema=writer.schema))
            count += len(chunk)
    finally:
        if writer is not None:
            writer.close()
    return count


WRITERS: dict[str, Callable[[Iterator[Row], BinaryIO], int]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".jsonl": _write_json_lines,
}
"""Writers by file extension."""
