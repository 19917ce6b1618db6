"""The folder of a store, and how a finished one takes its place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection
from pathlib import Path

from carat.data.store.layout import (
    CORPORA,
    GROUPS,
    IDS,
    INTENSITIES,
    KNOWN,
    LABELS,
    SPLIT,
    TRANSCRIPT_OFFSETS,
    TRANSCRIPTS,
    feature_file,
)
from carat.data.store.manifest import MANIFEST, read_manifest
from carat.utils.errors import DataError
from carat.utils.files import sync_folder
from carat.utils.output_folder import FolderKind, claim

STORE = FolderKind(
    name="store",
    markers=(MANIFEST,),
    patterns=(
        feature_file("*"),
        *(LABELS, KNOWN, SPLIT, IDS, GROUPS, CORPORA, INTENSITIES, TRANSCRIPTS, TRANSCRIPT_OFFSETS),
    ),
    finished=MANIFEST,
    error=DataError,
    recognizes=lambda folder: bool(_listed(folder)),
    listed=lambda folder: _listed(folder),
)
"""Output folder of a store. It never exists unfinished, because finished stores are renamed into place."""


def _listed(folder: Path) -> Collection[str]:
    """Files that the manifest of a store lists; empty if there is no valid one."""
    try:
        return read_manifest(folder).files.keys()
    except DataError:
        return ()


def publish(temporary: Path, path: Path, overwrite: bool) -> None:
    """Rename a finished store into place, durably.

    Args:
        temporary: folder of the finished store, in the parent of `path`.
        path: target folder.
        overwrite: replace an existing store.

    Raises:
        RunError: another process is writing the same store.
        DataError: see `carat.utils.output_folder.check_folder`.
    """
    temporary.chmod(0o755)
    for folder in (temporary / "features", temporary):
        sync_folder(folder)
    if not path.exists():
        temporary.rename(path)
        sync_folder(path.parent)
        return
    with claim(STORE, path, overwrite=overwrite, clear=False):
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".replaced", dir=path.parent))
        path.rename(old / path.name)
        try:
            temporary.rename(path)
        except OSError:
            (old / path.name).rename(path)
            old.rmdir()
            raise
        sync_folder(path.parent)
    shutil.rmtree(old, ignore_errors=True)
