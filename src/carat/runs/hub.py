"""Runs on the Hugging Face Hub: names `hf://owner/name@revision`, download into a cache, upload.

The network is used only by a name that begins with `hf://`, and by `push`. Files that could run code are
refused.
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carat.config.encoders import ENCODERS
from carat.runs.card import RunCard, check_files, read_run
from carat.runs.folder import (
    CARD,
    ENVIRONMENT,
    EXPERIMENT,
    METRICS,
    MODEL_CARD,
    MODEL_CARD_JSON,
    REFERENCE,
    WEIGHTS,
)
from carat.utils.errors import ConfigError, RunError, printable, shorten
from carat.utils.files import replace_file
from carat.utils.logging import logger

if TYPE_CHECKING:
    from huggingface_hub import HfApi

CACHE = "CARAT_CACHE"
"""Environment variable with the folder of downloaded runs; defaults to `~/.cache/carat`."""
DOCUMENTS = ("README.md", "LICENSE", "LICENSE.txt", MODEL_CARD_JSON)
FILES = (CARD, EXPERIMENT, WEIGHTS, REFERENCE, ENVIRONMENT, METRICS, f"{ENCODERS}/*/*.json", *DOCUMENTS)
"""Patterns of the files of a run that are shared."""
IGNORED = (".gitattributes", ".gitignore", "*.svg", "*.png", "*.jpg")
"""Patterns of other files that a repository may have; they are not downloaded."""
MAX_BYTES = 1 << 33
"""Largest run that is downloaded."""
NAME = re.compile(r"hf:/+(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
"""A name; paths have lost one of the slashes."""


@dataclass(frozen=True)
class HubName:
    """A run on the hub."""

    repository: str
    """Owner and name."""
    revision: str
    """Branch, tag or commit."""

    def __str__(self) -> str:
        return f"hf://{self.repository}@{self.revision}"


def parse_name(run: str | os.PathLike[str]) -> HubName | None:
    """Parse `hf://owner/name@revision`; None for folders.

    Raises:
        ConfigError: it begins with `hf:`, but is no such name.

    >>> parse_name("hf://me/calls@v1"), parse_name("runs/calls")
    (HubName(repository='me/calls', revision='v1'), None)
    """
    name = os.fspath(run)
    if not name.startswith("hf:/"):
        return None
    match = NAME.fullmatch(name)
    if match is None or ".." in name:
        raise ConfigError(
            f"'{printable(shorten(name))}' is no name of a run on the hub: hf://owner/name@revision"
        )
    return HubName(match["repository"], match["revision"] or "main")


def cache_folder() -> Path:
    """Folder of downloaded runs."""
    configured = os.environ.get(CACHE)
    return Path(configured) if configured else Path.home() / ".cache" / "carat"


def download(name: HubName) -> Path:
    """Download a run into the cache, from which it is taken without network or if `HF_HUB_OFFLINE` is set.

    Files appear in the cache once their checksums are those of the run's card.

    Args:
        name: run on the hub.

    Returns:
        Folder of the run.

    Raises:
        RunError: huggingface_hub is not installed, there is no such run, no connection and no copy in the
            cache, or the repository has files that a run does not have.
    """
    folder = cache_folder() / "hub" / name.repository.replace("/", "--")
    reference = folder / "refs" / f"{name.revision.replace('/', '--')}.txt"
    try:
        commit = _download(name, folder)
    except _UnreachableError as error:
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else name.revision
        if not (folder / commit / CARD).is_file():
            raise RunError(f"{name}: {error}, and there is no copy in {folder}") from error
        logger.warning(f"note: {name}: {error}; the copy in the cache is used")
        return folder / commit
    reference.parent.mkdir(parents=True, exist_ok=True)
    replace_file(reference, commit.encode())
    return folder / commit


class _UnreachableError(Exception):
    """The hub cannot be reached."""


def _download(name: HubName, folder: Path) -> str:
    """Download a run unless the cache has it; its commit."""
    with _errors(name):
        api = _api()
        info = api.model_info(name.repository, revision=name.revision, files_metadata=True)
        commit, siblings = info.sha or "", info.siblings or []
        if not re.fullmatch(r"[0-9a-f]{40}", commit):
            raise RunError(f"{name}: the hub names no commit")
        if (folder / commit / CARD).is_file():
            return commit
        files = _check([x.rfilename for x in siblings], name)
        size = sum(x.size or 0 for x in siblings if x.rfilename in files)
        if size > MAX_BYTES:
            raise RunError(f"{name}: has {size:,} bytes, more than {MAX_BYTES:,}")
        logger.info(f"downloading {name} ({size / 1e6:.0f} MB)")
        unfinished = folder / f"{commit}.unfinished"
        api.snapshot_download(
            name.repository, revision=commit, local_dir=unfinished, allow_patterns=sorted(files)
        )
    card, _ = read_run(unfinished)
    check_files(unfinished, card)
    if undocumented := {x for x in files if x.startswith(ENCODERS)} - card.digests.keys():
        raise RunError(f"{name}: {sorted(undocumented)[0]} is not listed in {CARD}")
    shutil.rmtree(unfinished / ".cache", ignore_errors=True)  # of the client
    unfinished.rename(folder / commit)
    return commit


def _check(names: list[str], name: HubName) -> set[str]:
    """Check the names of the files of a repository; those of the run.

    Raises:
        RunError: it is no run, or has other files.
    """
    files = {x for x in names if _matches(x, FILES)}
    for other in sorted(set(names) - files):
        if not _matches(other, IGNORED):
            raise RunError(
                f"{name}: has '{printable(shorten(other, 60))}', which is no file of a run; repositories "
                "with code or pickles are refused"
            )
    if lacking := {CARD, EXPERIMENT, WEIGHTS} - files:
        raise RunError(f"{name}: not a carat run, {sorted(lacking)[0]} is missing")
    return files


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return ".." not in name and any(
        fnmatch.fnmatchcase(name, x) and name.count("/") == x.count("/") for x in patterns
    )


def push(
    run: str | os.PathLike[str], to: str, *, private: bool = True, message: str = "Upload a run of carat"
) -> str:
    """Upload a finished run to the Hugging Face Hub: weights, card, experiment and documents, nothing else.

    The access token is that of `hf auth login` or `HF_TOKEN`.

    Args:
        run: folder of the run.
        to: `hf://owner/name`, or with `@branch` an existing branch.
        private: create a private repository, if it does not exist yet.
        message: message of the commit.

    Returns:
        Name of the uploaded revision, `hf://owner/name@commit`.

    Raises:
        ConfigError: the name is invalid.
        RunError: the run is unfinished or corrupt, or the hub refuses it or cannot be reached.

    Example:
        carat.push("my-run", "hf://me/my-run")
    """
    name = parse_name(to)
    if name is None:
        raise ConfigError(f"'{printable(shorten(to))}' is no name on the hub: hf://owner/name")
    folder = Path(run)
    card, _ = read_run(folder)
    check_files(folder, card)
    files = dict(_shared_files(folder, card))
    with _errors(name):
        from huggingface_hub import CommitOperationAdd

        api = _api()
        api.create_repo(name.repository, private=private, exist_ok=True)
        operations = [CommitOperationAdd(name, str(file)) for name, file in files.items()]
        done = api.create_commit(name.repository, operations, commit_message=message, revision=name.revision)
    return f"hf://{name.repository}@{done.oid}"


def _shared_files(folder: Path, card: RunCard) -> Iterator[tuple[str, Path]]:
    """Files of a run that are uploaded, by name: those with a checksum, and documents that are regular files.

    The model card is the page of the repository, unless the run has a README.md of its own.
    """
    for name in sorted({CARD, EXPERIMENT, WEIGHTS, *card.digests}):
        yield name, folder / name
    for name, file in [("README.md", folder / MODEL_CARD), *((x, folder / x) for x in (METRICS, *DOCUMENTS))]:
        if file.is_file() and not file.is_symlink():
            yield name, file


def _api() -> HfApi:
    """The client of the hub.

    Raises:
        RunError: it is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise RunError("runs on the hub need huggingface_hub: pip install 'carat-emotion[hub]'") from error
    return HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="carat")


@contextmanager
def _errors(name: HubName) -> Iterator[Any]:
    """Turn errors of the client into one line.

    Raises:
        RunError: the hub refused.
        _UnreachableError: there is no connection, or offline mode.
    """
    try:
        yield
    except RunError:
        raise
    except ImportError as error:
        raise RunError("runs on the hub need huggingface_hub: pip install 'carat-emotion[hub]'") from error
    except Exception as error:  # of huggingface_hub, of its HTTP client, and OSError
        from huggingface_hub import errors

        if isinstance(error, errors.OfflineModeIsEnabled):
            raise _UnreachableError("HF_HUB_OFFLINE is set") from error
        for kind, problem in (
            (errors.GatedRepoError, "access must be requested from the owner"),
            (errors.RevisionNotFoundError, f"has no revision '{name.revision}'"),
            (errors.RepositoryNotFoundError, "no such repository, or it is private and there is no token"),
        ):
            if isinstance(error, kind):
                raise RunError(f"{name}: {problem}") from error
        status = getattr(getattr(error, "response", None), "status_code", None)
        reason = shorten(printable(" ".join(str(error).split())), 160)
        if status is not None:
            raise RunError(f"{name}: the hub answered {status}: {reason}") from error
        raise _UnreachableError(f"the hub cannot be reached ({type(error).__name__}: {reason})") from error
