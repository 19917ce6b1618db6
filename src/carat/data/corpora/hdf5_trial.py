"""A first reading of HDF5 files in processes of their own, which are ended when they never would.

libhdf5 checks much of what a file says, but not that the addresses in it lead nowhere in a circle, and it may
crash on what it did not check. What was once read to its end can be read again.
"""

from __future__ import annotations

import math
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from carat.utils.errors import DataError

COMMAND = [sys.executable, "-m", "carat.data.corpora.hdf5_trial"]
SECONDS = 1
"""Of processor time that a small file may take."""
BYTES_PER_SECOND = 1 << 24
"""How slowly a large one may be read at least."""
MEMORY = 2 << 30
"""Of address space, with eight times the file's size beyond."""


def try_reading(files: Iterable[Path]) -> None:
    """Read sequences to their end, each in a process of its own, at the same time.

    What is merely wrong with a file is not said here: its reader says it better.

    Raises:
        DataError: reading a file crashes or never ends.
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
        ends = [(file, process.wait()) for file, process in started]
    finally:
        for _, process in started:
            process.kill()
            process.wait()
    for file, code in ends:
        if code:
            raise DataError(f"{file}: cannot be read as HDF5 (reading it crashes or never ends)")


def limit(size: int) -> None:
    """End this process when it has used far more time or memory than a file of so many bytes needs."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = math.ceil(used.ru_utime + used.ru_stime) + SECONDS + size // BYTES_PER_SECOND
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY + 8 * size, MEMORY + 8 * size))


def main(file: Path) -> None:
    """Read every entry, within limits of time and memory."""
    from carat.data.corpora.sequence_file import opened

    limit(file.stat().st_size if file.is_file() else 0)
    try:
        with opened(file) as data:
            for id in data.ids():
                try:
                    data.read(id)
                except DataError:
                    data.read(id, text=True)
    except DataError:
        pass  # the reader says it


if __name__ == "__main__":
    main(Path(sys.argv[1]))
