"""Trial reads of HDF5 files in subprocesses with limits on CPU time and memory.

libhdf5 does not detect all corrupt files: some make it crash or loop forever. A file that was read to its end
once can safely be read again.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from carat.utils import limits
from carat.utils.errors import DataError

COMMAND = [sys.executable, "-m", "carat.data.corpora.hdf5_sandbox"]
CPU_SECONDS = 1
"""CPU time allowed for a small file."""
BYTES_PER_SECOND = 1 << 24
"""Minimum speed of reading, which extends the CPU time for larger files."""
MEMORY = 2 << 30
"""Address space allowed for a small file in bytes; larger files may use another eight times their size."""


def check_readable(files: Iterable[Path]) -> None:
    """Read files to their end, each in a subprocess, concurrently.

    Errors that the reader itself detects are ignored here: reading the file raises them again.

    Raises:
        DataError: reading a file crashes or exceeds the limits.
    """
    started = [
        (
            file,
            subprocess.Popen(
                [*COMMAND, str(file)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            ),
        )
        for file in files
    ]
    try:
        exit_codes = [(file, process.wait()) for file, process in started]
    finally:
        for _, process in started:
            process.kill()
            process.wait()
    for file, code in exit_codes:
        if code:
            raise DataError(f"{file}: cannot be read as HDF5 (reading it crashes or never ends)")


def limit_resources(file_size: int) -> None:
    """Limit CPU time and address space of this process to what reading a file of this size needs."""
    limits.limit_resources(CPU_SECONDS + file_size // BYTES_PER_SECOND, MEMORY + 8 * file_size)


def main(file: Path) -> None:
    """Read all entries of a file with limited resources."""
    from carat.data.corpora.sequence_file import open_sequence

    limit_resources(file.stat().st_size if file.is_file() else 0)
    try:
        with open_sequence(file) as sequence:
            for id in sequence.ids():
                try:
                    sequence.read(id)
                except DataError:
                    sequence.read(id, text=True)
    except DataError:
        pass  # raised again when the file is read


if __name__ == "__main__":
    main(Path(sys.argv[1]))
