"""Output folders: content, exclusive access, resuming, and what `--overwrite` may delete."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from carat.utils.errors import CaratError, RunError
from carat.utils.files import finished_name, unfinished_name
from carat.utils.locking import LOCK, lock, refuse_locked
from carat.utils.reading import check_regular, read_json

State = Literal["new", "begun", "finished"]
"""State of an output folder: no results, resumable work, or a complete result."""


@dataclass(frozen=True)
class FolderKind:
    """A kind of output folder: the files that its owner writes, and how it is recognized."""

    name: str
    """Noun for messages, e.g. "run"."""
    markers: tuple[str, ...]
    """Files that identify the folder, in the order of writing. They are deleted last, in reverse order, so
    that a partially deleted folder is still recognized."""
    patterns: tuple[str, ...]
    """Glob patterns of all other files that the owner may write, relative to the folder. In the folders of a
    pattern, `*` also matches `/`, so that `runs/*/run.json` is in any subfolder of `runs`."""
    finished: str = ""
    """File that marks complete work; empty if work can always be extended."""
    error: type[CaratError] = RunError
    """Exception for a folder that cannot be used."""
    recognizes: Callable[[Path], bool] = lambda folder: True
    """Whether the markers, which all exist, were written by the owner."""
    has_results: Callable[[Path], bool] = lambda folder: True
    """Whether the folder has results; without, it is replaced even if not `--overwrite`."""
    listed: Callable[[Path], Collection[str]] | None = None
    """Relative paths of the files that the owner's record lists, besides the markers; others are foreign."""
    shares_folder: bool = False
    """Whether work can be resumed in a folder with foreign files; `--overwrite` never accepts them."""

    def owns(self, path: str) -> bool:
        """Return whether the owner may have written a file, given its path relative to the folder."""
        parent, _, name = path.rpartition("/")
        if name == LOCK:
            return not parent or self.has_entry(parent)
        written = f"{parent}/{finished_name(name)}" if parent else finished_name(name)
        return any(_matches(written, pattern) for pattern in (*self.markers, *self.patterns))

    def foreign_files(self, folder: Path) -> list[str]:
        """Return the sorted relative paths of files and links that the owner does not write."""
        listed = None if self.listed is None else {*self.listed(folder), *self.markers}

        def is_foreign(path: str) -> bool:
            name = path.rpartition("/")[2]
            unlisted = (
                listed is not None and name != LOCK and name == finished_name(name) and path not in listed
            )
            return unlisted or not self.owns(path)

        files, links = _walk(folder)
        return sorted(path for path in [*files, *links] if path in links or is_foreign(path))

    def links(self, folder: Path) -> list[str]:
        """Return the sorted relative paths of links in place of what the owner writes."""
        return sorted(path for path in _walk(folder)[1] if self.has_entry(path) or path == LOCK)

    def state(self, folder: Path) -> State | Literal["foreign"]:
        """Return the state of a folder; "foreign" if the owner did not write it, or if it is a file."""
        if not folder.exists():
            return "new"
        if not folder.is_dir():
            return "foreign"
        started = {LOCK, *self.markers[:-1], *map(unfinished_name, self.markers)}
        if {path.name for path in folder.iterdir()} <= started:  # possibly killed during setup
            return "new"
        if not all((folder / name).is_file() for name in self.markers) or not self.recognizes(folder):
            return "foreign"
        if self.finished and (folder / self.finished).is_file():
            return "finished"
        return "begun" if self.has_results(folder) else "new"

    def described(self, state: str) -> str:
        """Describe the content of a folder with an indefinite article, for messages."""
        if state == "begun" and self.finished:
            return f"an unfinished {self.name}"
        return f"an {self.name}" if self.name[0] in "aeiou" else f"a {self.name}"

    def has_entry(self, path: str) -> bool:
        """Return whether the owner writes the top-level file or subfolder of a relative path."""
        entry = finished_name(path.split("/")[0])
        heads = [pattern.split("/")[0] for pattern in (*self.markers, *self.patterns)]
        return any(fnmatchcase(entry, head) for head in heads)


def check_folder(
    kind: FolderKind,
    folder: Path,
    *,
    overwrite: bool = False,
    difference: Callable[[], str] | None = None,
    accept_finished: bool = False,
) -> State:
    """Decide how to work in a folder, without changing anything.

    Args:
        kind: kind of folder to write.
        folder: output folder, which may not exist yet.
        overwrite: replace existing content.
        difference: returns the first difference between the existing and the requested work, e.g. "store", or
            an empty string if they are equal and the work can be resumed. None if it cannot be resumed.
        accept_finished: accept finished work without a difference.

    Returns:
        "new" to start from scratch (existing content is to be cleared), "begun" to resume, "finished" if
        nothing is left to do.

    Raises:
        RunError: the folder is in use by another process.
        CaratError: `kind.error`; the folder contains something else, or results that must not be replaced.
    """
    refuse_locked(folder)
    return _decide(kind, folder, overwrite, difference, accept_finished)


def _decide(
    kind: FolderKind,
    folder: Path,
    overwrite: bool,
    difference: Callable[[], str] | None,
    accept_finished: bool,
) -> State:
    state = kind.state(folder)
    refuse_system_path(folder, kind.error)
    if state == "foreign":
        raise kind.error(f"{folder}: exists and is not a carat {kind.name}; choose another folder")
    resumable = state == "begun" or (state == "finished" and accept_finished)
    if overwrite or not resumable:
        difference = None
    if links := kind.links(folder):
        raise kind.error(
            f"{folder}: '{links[0]}' is a link, through which carat would write elsewhere; remove it or "
            "choose another folder"
        )
    foreign = kind.foreign_files(folder)
    if difference is not None:  # nothing is deleted
        foreign = [] if kind.shares_folder else [path for path in foreign if not kind.has_entry(path)]
    if foreign:
        raise kind.error(
            f"{folder}: holds '{foreign[0]}', which is not part of a carat {kind.name}; move it away or "
            f"choose another folder"
        )
    content = kind.described(state)
    if difference is not None:
        if other := difference():
            raise kind.error(
                f"{folder}: holds {content} with another {other} already; --overwrite replaces it"
            )
        return state
    if state != "new" and not overwrite:
        raise kind.error(f"{folder}: holds {content} already; --overwrite replaces it")
    return "new"


@contextmanager
def claim(
    kind: FolderKind,
    folder: Path,
    *,
    overwrite: bool = False,
    difference: Callable[[], str] | None = None,
    accept_finished: bool = False,
    clear: bool = True,
) -> Iterator[State]:
    """Lock an output folder for this process and prepare it for writing (context manager).

    A missing folder is created. Content to be replaced is deleted on entry, after checking that all of it was
    written by the owner and that no other process uses the folder.

    Args:
        kind, folder, overwrite, difference, accept_finished: see `check_folder`.
        clear: delete content to be replaced; otherwise the caller replaces it.

    Yields:
        The state, see `check_folder`.

    Raises:
        RunError: the folder is in use by another process; nothing was changed.
        CaratError: `kind.error`, see `check_folder`; nothing was changed.
    """

    check_folder(
        kind, folder, overwrite=overwrite, difference=difference, accept_finished=accept_finished
    )  # before a folder is created
    folder.mkdir(parents=True, exist_ok=True)
    with lock(folder):
        state = _decide(kind, folder, overwrite, difference, accept_finished)
        if state == "new" and clear:
            clear_folder(kind, folder)
        yield state


def clear_folder(kind: FolderKind, folder: Path) -> None:
    """Delete the content of a folder except for its lock, held by the caller; markers are deleted last.

    The caller must have checked for foreign files, see `check_folder`.

    Raises:
        RunError: a subfolder is in use by another process; nothing was deleted.
    """
    for file in folder.rglob(LOCK):
        if file.parent != folder:
            refuse_locked(file.parent)
    last = {name: place for place, name in enumerate(reversed(kind.markers), start=1)}
    for path in sorted(folder.iterdir(), key=lambda path: last.get(path.name, 0)):
        if path.name == LOCK or not kind.has_entry(path.name):  # others are empty folders
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _walk(folder: Path) -> tuple[set[str], set[str]]:
    """Relative paths of the files and of the links in a folder, which may not exist."""
    paths: set[str] = set()
    links: set[str] = set()
    for root, folders, files in os.walk(folder, onerror=_raise):
        inside = Path(root).relative_to(folder)
        paths.update((inside / name).as_posix() for name in files)
        links.update((inside / x).as_posix() for x in (*files, *folders) if Path(root, x).is_symlink())
    return paths - links, links


def _matches(path: str, pattern: str) -> bool:
    """Whether a path is in a folder, and has a name, of a pattern.

    >>> _matches("logs/a.b/c", "logs/a.*"), _matches("runs/x/y/a.b", "runs/*/a.*")
    (False, True)
    """
    (folder, _, name), (folders, _, names) = path.rpartition("/"), pattern.rpartition("/")
    return fnmatchcase(folder, folders) and fnmatchcase(name, names)


def _raise(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


@contextmanager
def replacing(kind: FolderKind, folder: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Write a folder beside its target and move it there when it is complete (context manager).

    If the block raises, nothing is changed.

    Args:
        kind: kind of folder to write, without subfolders that others may lock.
        folder: output folder, which may not exist yet.
        overwrite: replace existing content.

    Yields:
        Temporary folder to write into.

    Raises:
        RunError: the folder is in use by another process.
        CaratError: `kind.error`, see `check_folder`.
    """
    check_folder(kind, folder, overwrite=overwrite)
    target = folder.resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{target.name}."
    temporary = Path(tempfile.mkdtemp(prefix=prefix, suffix=".unfinished", dir=target.parent))
    try:
        yield temporary
        with claim(kind, folder, overwrite=overwrite):
            last = (kind.finished,)
            for path in sorted(temporary.iterdir(), key=lambda path: path.name in last):
                shutil.move(path, folder / path.name)  # a rename, unless the folder is a mount point
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


SYSTEM = tuple(map(Path, ("/dev", "/proc", "/sys")))
"""Folders whose files are not on a disk."""
SHARED_MEMORY = Path("/dev/shm")


def refuse_system_path(path: Path, error: type[CaratError]) -> None:
    """Refuse to write below `SYSTEM`, except for shared memory.

    Raises:
        CaratError: `error`.
    """
    real = path.resolve()
    if any(real.is_relative_to(x) for x in SYSTEM) and not real.is_relative_to(SHARED_MEMORY):
        raise error(f"{path}: is in a folder of the system, where no file can be kept; choose another folder")


def check_file(file: Path, overwrite: bool, error: type[CaratError] = RunError) -> None:
    """Check that an output file can be written.

    Args:
        file: file to write.
        overwrite: replace an existing file.
        error: exception for an existing file.

    Raises:
        RunError: the folder of the file is in use by another process.
        CaratError: `error`; the file exists, or is a device or the like.
    """
    if file.is_dir():
        raise error(f"{file}: is a folder; name a file")
    refuse_system_path(file, error)
    existing = next(folder for folder in file.absolute().parents if folder.exists())
    if not existing.is_dir():
        raise error(f"{file}: {existing} is not a folder; choose another one")
    if file.exists():
        check_regular(file, error)
    if os.path.lexists(file) and not overwrite:
        raise error(f"{file}: exists already; --overwrite replaces it")
    refuse_locked(file.parent)


def read_plan(file: Path) -> dict[str, Any]:
    """Read the plan of an output folder, a JSON object.

    Raises:
        RunError: the plan cannot be read.
    """
    try:
        plan = read_json(file, RunError)
    except RunError as error:
        raise RunError(f"{error}; --overwrite starts anew") from error
    if not isinstance(plan, dict):
        raise RunError(f"{file}: expected a JSON object, found {plan!r:.50}; --overwrite starts anew")
    return plan


def has_key(file: Path, key: str) -> bool:
    """Return whether a file is a JSON object with a key."""
    try:
        return key in read_plan(file)
    except RunError:
        return False


def plan_difference(file: Path, plan: Mapping[str, Any]) -> str:
    """Return the dotted key of the first difference of a folder's plan from `plan`, for `check_folder`.

    Raises:
        RunError: the folder's plan cannot be read.
    """
    return first_difference(read_plan(file), json.loads(json.dumps(plan)))


def first_difference(stored: Any, wanted: Any) -> str:
    """Return the dotted key of the first difference of two nested dictionaries; empty if they are equal.

    >>> first_difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    'b.c'
    """
    if not isinstance(stored, dict) or not isinstance(wanted, dict):
        return "" if stored == wanted else "value"
    for key in [*wanted, *(key for key in stored if key not in wanted)]:
        if key not in stored or key not in wanted:
            return str(key)
        nested = first_difference(stored[key], wanted[key])
        if nested:
            return str(key) if nested == "value" else f"{key}.{nested}"
    return ""
