"""Parquet files, read within a limit of size."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet

from carat.data.tables.content import MAX_EXPANSION, MIN_LIMIT
from carat.utils.errors import DataError
from carat.utils.reading import check_regular

BATCH = 1024
"""Rows read at a time."""


def read_parquet(file: Path) -> pa.Table:
    """Read a Parquet file; columns of lists become text in JSON.

    Raises:
        DataError: the file cannot be read, or is much larger in memory than on disk.
    """
    check_regular(file)
    limit = max(16 * MIN_LIMIT, MAX_EXPANSION * file.stat().st_size)
    batches, size = [], 0
    try:
        with pa.parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
            for batch in opened.iter_batches(BATCH):
                size += batch.nbytes
                if size > limit:
                    raise DataError(f"{file}: takes more than {limit >> 20} MB in memory, which is refused")
                batches.append(batch)
        table = pa.Table.from_batches(batches, schema)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file}: cannot be read as a table ({reason})") from error
    for i, field in enumerate(table.schema):
        if pa.types.is_list(field.type) or pa.types.is_large_list(field.type):
            cells = [None if x is None else json.dumps(x, default=str) for x in table[i].to_pylist()]
            table = table.set_column(i, field.name, pa.array(cells, pa.string()))
    return table
