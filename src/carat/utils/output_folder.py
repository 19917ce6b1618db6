"""The claim on an output folder: what it holds, who works in it, and what `--overwrite` may delete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from carat.utils.errors import CaratError, RunError
from carat.utils.files import finished_name, unfinished_name
from carat.utils.locking import LOCK, lock, refuse_locked

State = Literal["new", "begun", "finished"]
"""Of an output folder: nothing worth keeping, work that can be resumed, or a complete result."""


@dataclass(frozen=True)
class FolderKind:
    """A kind of output folder: what its owner writes there, and how it is recognized."""

    name: str
    """Noun for messages, e.g. "run"."""
    markers: tuple[str, ...]
    """Files that identify the folder, in the order in which they are written. They are deleted last, in the
    reverse order, so that a folder whose deletion was interrupted is still recognized."""
    patterns: tuple[str, ...]
    """Everything else that the owner may write: glob patterns of paths relative to the folder. `*` also
    matches `/`, so that `logs/*` is a whole subfolder."""
    finished: str = ""
    """File that exists when the work is complete; empty if the work can always be extended."""
    error: type[CaratError] = RunError
    """Raised when the folder is refused."""
    recognizes: Callable[[Path], bool] = lambda folder: True
    """Whether the content of the markers, which all exist, is the owner's."""
    has_results: Callable[[Path], bool] = lambda folder: True
    """Whether there is work worth keeping; a folder without is replaced without `--overwrite`."""
    shares_folder: bool = False
    """Whether work is also resumed beside files that the owner does not write, which `--overwrite` refuses in
    any case."""

    def owns(self, path: str) -> bool:
        """Whether the owner may have written a file, given its path relative to the folder."""
        parent, _, name = path.rpartition("/")
        if name == LOCK:
            return not parent or self.has_entry(parent)
        written = f"{parent}/{finished_name(name)}" if parent else finished_name(name)
        return any(fnmatchcase(written, pattern) for pattern in (*self.markers, *self.patterns))

    def foreign_files(self, folder: Path) -> list[str]:
        """Paths, relative to the folder and sorted, of files that the owner does not write."""
        foreign = []
        for root, folders, files in os.walk(folder, onerror=_raise):
            inside = Path(root).relative_to(folder)
            links = [name for name in folders if Path(root, name).is_symlink()]
            paths = [(inside / name).as_posix() for name in files]
            foreign += [path for path in paths if not self.owns(path)]
            paths = [(inside / name).as_posix() for name in links]
            foreign += [path for path in paths if not self.has_entry(path)]
        return sorted(foreign)

    def state(self, folder: Path) -> State | Literal["foreign"]:
        """What a folder holds; "foreign" if it was not written by the owner, or is no folder."""
        if not folder.exists():
            return "new"
        if not folder.is_dir():
            return "foreign"
        started = {LOCK, *self.markers[:-1], *map(unfinished_name, self.markers)}
        if {path.name for path in folder.iterdir()} <= started:  # perhaps killed while it was set up
            return "new"
        if not all((folder / name).is_file() for name in self.markers) or not self.recognizes(folder):
            return "foreign"
        if self.finished and (folder / self.finished).is_file():
            return "finished"
        return "begun" if self.has_results(folder) else "new"

    def described(self, state: str) -> str:
        """The folder's content with an indefinite article, for messages."""
        if state == "begun" and self.finished:
            return f"an unfinished {self.name}"
        return f"an {self.name}" if self.name[0] in "aeiou" else f"a {self.name}"

    def has_entry(self, path: str) -> bool:
        """Whether the owner writes a file or a subfolder of this name directly in the folder."""
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
        kind: what is to be written.
        folder: where to; it need not exist.
        overwrite: replace what the folder holds.
        difference: names what distinguishes the folder's content from the work to be done, e.g. "store"; an
            empty string if both are the same, so that the work is resumed. None if it cannot be resumed.
        accept_finished: a finished folder without difference is a valid outcome.

    Returns:
        "new" if the folder is to be written from scratch (what it holds is to be cleared), "begun" if the
        work is to be resumed, "finished" if nothing is left to do.

    Raises:
        RunError: another process works in the folder.
        CaratError: of `kind.error`; the folder holds something else, or something that is not to be replaced.
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
    if state == "foreign":
        raise kind.error(f"{folder}: exists and is not a carat {kind.name}; choose another folder")
    resumable = state == "begun" or (state == "finished" and accept_finished)
    if overwrite or not resumable:
        difference = None
    foreign = kind.foreign_files(folder) if folder.exists() else []
    if difference is not None:  # nothing will be deleted
        foreign = [] if kind.shares_folder else [path for path in foreign if not kind.has_entry(path)]
    if foreign:
        raise kind.error(
            f"{folder}: holds '{foreign[0]}', which is not part of a carat {kind.name}; move it away or "
            f"choose another folder"
        )
    held = kind.described(state)
    if difference is not None:
        if other := difference():
            raise kind.error(f"{folder}: holds {held} with another {other} already; --overwrite replaces it")
        return state
    if state != "new" and not overwrite:
        raise kind.error(f"{folder}: holds {held} already; --overwrite replaces it")
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
    """Hold a folder for this process alone, ready to be written.

    A missing folder is created. What is to be replaced is deleted before the block is entered, once it is
    certain that all of it is the owner's and that no other process works in the folder.

    Args:
        kind, folder, overwrite, difference, accept_finished: see `check_folder`.
        clear: delete what is to be replaced; otherwise the block replaces it.

    Yields:
        The state, see `check_folder`.

    Raises:
        RunError: another process works in the folder; nothing was changed.
        CaratError: of `kind.error`, see `check_folder`; nothing was changed.
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
    """Delete what a folder holds, except for its lock, which the caller holds; the markers go last.

    The caller has made sure that nothing foreign is in it, see `check_folder`.

    Raises:
        RunError: another process works in a subfolder; nothing was deleted.
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


def _raise(error: OSError) -> None:
    raise error


def check_file(file: Path, overwrite: bool, error: type[CaratError] = RunError) -> None:
    """Refuse an output file that exists, or whose folder another process works in.

    Args:
        file: file to write.
        overwrite: replace an existing file.
        error: what is raised if the file exists.

    Raises:
        RunError: another process works in the file's folder.
        CaratError: of `error`; the file exists.
    """
    if file.is_dir():
        raise error(f"{file}: is a folder; name a file")
    if file.exists() and not overwrite:
        raise error(f"{file}: exists already; --overwrite replaces it")
    refuse_locked(file.parent)


def read_plan(file: Path) -> dict[str, Any]:
    """The plan that a folder's owner wrote, a JSON object.

    Raises:
        RunError: it cannot be read.
    """
    try:
        plan = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{file}: cannot be read ({error}); --overwrite starts anew") from error
    if not isinstance(plan, dict):
        raise RunError(f"{file}: expected a JSON object, found {plan!r:.50}; --overwrite starts anew")
    return plan


def has_key(file: Path, key: str) -> bool:
    """Whether a file is a JSON object that has a key, as the owner's marker has."""
    try:
        return key in read_plan(file)
    except RunError:
        return False


def plan_difference(file: Path, plan: Mapping[str, Any]) -> str:
    """The dotted key of the first value in which a folder's plan differs from `plan`, for `check_folder`.

    Raises:
        RunError: the folder's plan cannot be read.
    """
    return first_difference(read_plan(file), json.loads(json.dumps(plan)))


def first_difference(stored: Any, wanted: Any) -> str:
    """The dotted key of the first value in which two nested dictionaries differ; empty if they are equal.

    >>> first_difference({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 3}})
    'b.c'
    """
    if not isinstance(stored, dict) or not isinstance(wanted, dict):
        return "" if stored == wanted else "value"
    for key in [*wanted, *(key for key in stored if key not in wanted)]:
        if key not in stored or key not in wanted:
            return str(key)
        below = first_difference(stored[key], wanted[key])
        if below:
            return str(key) if below == "value" else f"{key}.{below}"
    return ""
