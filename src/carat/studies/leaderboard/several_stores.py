"""Comparison on several stores: a leaderboard of each, and one report over all of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carat.data.store import Store
from carat.studies.jobs import PLAN, has_results
from carat.studies.leaderboard.leaderboards import Leaderboards, rank_methods
from carat.studies.leaderboard.one_store import COMPARISON, StoreResult, compare_on
from carat.studies.leaderboard.protocol import Protocol
from carat.studies.leaderboard.several_report import FILES, write_report
from carat.utils.errors import ConfigError, RunError
from carat.utils.files import write_json
from carat.utils.logging import logger
from carat.utils.output_folder import FolderKind, claim, has_key, plan_difference, read_plan

STORES = "stores"
"""Folder of the comparisons on single stores."""
MAX_FOLDER = 60
"""Length in characters of the name of a store's folder."""


def _has_results(out: Path) -> bool:
    return any(has_results(folder) for folder in (out / STORES).glob("*"))


SEVERAL = FolderKind(
    name="comparison of several stores",
    markers=(PLAN,),
    patterns=(*FILES, *(f"{STORES}/*/{x}" for x in (*COMPARISON.markers, *COMPARISON.patterns))),
    recognizes=lambda folder: has_key(folder / PLAN, STORES),
    has_results=_has_results,
)


@dataclass(frozen=True)
class NamedStore:
    """A store with names that are unique in its comparison."""

    name: str
    """Name in reports."""
    folder: str
    """Folder of its comparison, relative to the output folder."""
    store: Store


def name_stores(stores: Sequence[Store]) -> list[NamedStore]:
    """Give every store a unique name and folder: those that repeat are numbered, in the given order.

    Raises:
        ConfigError: two stores hold the same data.
    """
    named: list[NamedStore] = []
    fingerprints: dict[str, Store] = {}
    for store in stores:
        twin = fingerprints.setdefault(store.manifest.fingerprint, store)
        if twin is not store:
            raise ConfigError(f"{store.folder}: holds the same data as {twin.folder}; give every store once")
        own = " ".join(store.manifest.name.split()) or "store"
        name = _numbered(own, [x.name for x in named], " ")
        slug = re.sub(r"[^\w+.-]+", "-", own)[:MAX_FOLDER].strip(".-") or "store"
        used = [x.folder.removeprefix(f"{STORES}/") for x in named]
        named.append(NamedStore(name, f"{STORES}/{_numbered(slug, used, '-')}", store))
    return named


def _numbered(name: str, used: Sequence[str], separator: str) -> str:
    """The first of `name`, `name 2`, `name 3`, … that is not used, whatever the case of its letters."""
    taken = {x.casefold() for x in used}
    number, candidate = 1, name
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{name}{separator}{number}"
    return candidate


def compare_stores(
    stores: Sequence[Store],
    out: Path,
    protocol: Protocol,
    workers: int,
    *,
    metric: str,
    overwrite: bool = False,
) -> Leaderboards:
    """Compare methods on every store in turn, rank them, and write the report.

    A method that fails on a store is left out of its leaderboard and of the ranks.

    Args:
        stores: two or more stores with the splits train, valid and test.
        out: output folder, new or of an interrupted comparison of these stores or some of them.
        protocol: methods, and how they are compared.
        workers: number of parallel training runs, one core each.
        metric: metric that is ranked; it does not affect the training, so that another one may follow.
        overwrite: replace an existing comparison.

    Raises:
        ConfigError: two stores hold the same data.
        DataError: a store was replaced.
        RunError: every method failed on every store, or see `carat.compare`.
    """
    named = name_stores(stores)
    plan = {STORES: {x.name: x.store.manifest.fingerprint for x in named}, **protocol.plan}
    with _claim(out, plan, overwrite):
        results: dict[str, StoreResult] = {}
        for number, x in enumerate(named, start=1):
            logger.info(f"store {number} of {len(named)}: {x.name}")
            results[x.name] = compare_on(x.store, out / x.folder, protocol, workers, keep_going=True)
        boards = rank_methods(
            {name: x.board for name, x in results.items()},
            {name: x.failed for name, x in results.items()},
            metric,
        )
        if not any(boards.by_store.values()):
            raise RunError(f"{out}: every method failed on every store; {boards.notes[0]}")
        about = {name: x.about for name, x in results.items()}
        write_report(boards, {x.name: (x.store, x.folder) for x in named}, about, protocol, out)
    return boards


@contextmanager
def _claim(out: Path, plan: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Claim the output folder, new or of the same comparison, to which stores may be added."""
    file = out / PLAN

    def difference() -> str:
        stored = read_plan(file).get(STORES)
        known = stored if isinstance(stored, dict) else {}
        kept = {name: value for name, value in plan[STORES].items() if name in known}
        return plan_difference(file, {**plan, STORES: kept})

    with claim(SEVERAL, out, overwrite=overwrite, difference=difference):
        write_json(file, plan)
        yield
