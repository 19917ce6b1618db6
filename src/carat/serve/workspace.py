"""The private folder of a server, for uploads and results; nothing in it survives the server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from carat.utils.errors import RunError
from carat.utils.locking import lock, refuse_locked

PREFIX = "carat-serve-"
NEW_SECONDS = 60.0
"""Age up to which a folder without a lock may be one whose server is starting."""


@contextmanager
def open_workspace() -> Iterator[Path]:
    """Create a folder that only this user can read, deleted after the block (context manager).

    If this process is killed, another one deletes the folder; what both leave behind, as after a power
    loss, is deleted when the next server starts.

    Yields:
        The folder, in the system's folder of temporary files.
    """
    remove_leftovers(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))  # mode 0700
    command = [sys.executable, "-P", "-m", "carat.serve.cleanup", str(folder)]
    cleaner = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    try:
        with lock(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        assert cleaner.stdin is not None
        cleaner.stdin.close()
        cleaner.wait()


def remove_leftovers(parent: Path) -> None:
    """Delete the folders of servers that have ended.

    Args:
        parent: folder of temporary files.
    """
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            status = folder.lstat()
            is_own = folder.is_dir() and not folder.is_symlink() and status.st_uid == os.getuid()
            if not is_own or time.time() - status.st_mtime < NEW_SECONDS:
                continue
            refuse_locked(folder)
        except (OSError, RunError):  # gone, or in use
            continue
        shutil.rmtree(folder, ignore_errors=True)
