"""Arrays written row by row, of a length that is not known in advance."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray


class FlatFile:
    """A `.npy` file to which rows are appended.

    NumPy pads headers of version 1.0, so that closing the file can rewrite the number of rows in place.

    Args:
        path: file to create.
        width: number of columns.
        dtype: data type.
    """

    def __init__(self, path: Path, width: int, dtype: np.dtype[Any]) -> None:
        self.path, self.width, self.dtype = path, width, dtype
        self.rows = 0
        self._file: IO[bytes] | None = path.open("wb")
        self._header()

    def _header(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        description = np.lib.format.dtype_to_descr(self.dtype)
        shape = (self.rows, self.width)
        np.lib.format.write_array_header_1_0(
            self._file, {"descr": description, "fortran_order": False, "shape": shape}
        )

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows of the width and data type of the file."""
        assert self._file is not None, "closed"
        self._file.write(np.ascontiguousarray(rows).tobytes())
        self.rows += len(rows)

    def close(self) -> None:
        """Write the number of rows and close the file."""
        if self._file is not None:
            self._header()
            self._file.close()
            self._file = None

    def abandon(self) -> None:
        """Close an incomplete file, whose buffer a full disk may not take."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
