"""Comparison of methods on one store or several: tune, train with several seeds, evaluate, write reports."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.config.methods import RESERVED, find_method, method_names
from carat.data.store import Store, open_store
from carat.data.summary import check_measurable
from carat.studies.leaderboard.leaderboards import RANKED, Leaderboards
from carat.studies.leaderboard.one_store import compare_on
from carat.studies.leaderboard.protocol import Protocol
from carat.studies.leaderboard.result import Leaderboard
from carat.studies.leaderboard.several_stores import compare_stores
from carat.utils.errors import ConfigError, did_you_mean

StoreLike = Store | str | os.PathLike[str]


def choose_methods(wanted: Sequence[str]) -> list[str]:
    """Resolve names of methods, in the order of the registry; `all` stands for every method.

    Raises:
        ConfigError: no method is given, a method is unknown, or its package cannot be imported.
    """
    if not wanted:
        raise ConfigError(f"--methods: specify at least one of {', '.join(method_names())}")
    _check_names(wanted, "--methods")
    return [name for name in method_names() if RESERVED in wanted or name in wanted]


def _check_names(names: Iterable[str], origin: str) -> None:
    try:
        for name in names:
            if name != RESERVED:
                find_method(name)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from error


def experiments_of(
    methods: Sequence[str], preset: str, settings: Mapping[str, Mapping[str, Any]]
) -> dict[str, Experiment]:
    """Build the experiment of each method before tuning.

    Args:
        methods: names of methods.
        preset: preset of every method.
        settings: overrides of the preset by method; those under `all` apply to every method, and a method's
            own overrides take precedence.

    Returns:
        Experiments by method.

    Raises:
        ConfigError: a key of `settings` is not a method, or a value is invalid.
    """
    _check_names(settings, "settings")
    return {
        name: load_experiment(
            preset=preset,
            overrides=merge(
                merge(settings.get("all", {}), settings.get(name, {})), {"method": {"name": name}}
            ),
        )
        for name in methods
    }


@overload
def compare(
    store: StoreLike,
    out: str | os.PathLike[str],
    *,
    methods: Sequence[str] = ...,
    preset: str = ...,
    settings: Mapping[str, Mapping[str, Any]] | None = ...,
    seeds: int = ...,
    budget: int = ...,
    workers: int = ...,
    overwrite: bool = ...,
    metric: str | None = ...,
) -> Leaderboard: ...


@overload
def compare(
    store: Sequence[StoreLike],
    out: str | os.PathLike[str],
    *,
    methods: Sequence[str] = ...,
    preset: str = ...,
    settings: Mapping[str, Mapping[str, Any]] | None = ...,
    seeds: int = ...,
    budget: int = ...,
    workers: int = ...,
    overwrite: bool = ...,
    metric: str | None = ...,
) -> Leaderboard | Leaderboards: ...


def compare(
    store: StoreLike | Sequence[StoreLike],
    out: str | os.PathLike[str],
    *,
    methods: Sequence[str] = ("all",),
    preset: str = "small",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    seeds: int = 5,
    budget: int = 1,
    workers: int = 1,
    overwrite: bool = False,
    metric: str | None = None,
) -> Leaderboard | Leaderboards:
    """Tune, train and evaluate methods equally, and write leaderboard.md, .csv, .html and costs.csv.

    Every method gets the same number of trials, which are compared on the validation split with the first
    seed; the best trial is then trained with every seed. Nothing is selected on the test split. Completed
    training runs are reused: the same call resumes an interrupted comparison, with the same results except
    for the costs of the runs that it trains.

    Several stores, whose labels and modalities may differ, are compared one after the other: each gets a
    leaderboard in `out/stores`, and comparison.md, .json, .html and mean_ranks.svg rank the methods over all
    of them. A method that fails on a store is left out there and of the ranks, with a note.

    Args:
        store: a store or its folder, with the splits train, valid and test; or several of them. Stores may be
            added to a finished comparison of several.
        out: output folder, new or of an interrupted comparison.
        methods: names of methods, or `all`.
        preset: preset of every method.
        settings: overrides of the preset by method; those under `all` apply to every method, and a method's
            own overrides take precedence.
        seeds: number of consecutive seeds, starting with the experiment's.
        budget: number of trials per method, the first of which has the preset's hyperparameters.
        workers: number of parallel training runs, one core each.
        overwrite: replace an existing comparison.
        metric: what several stores rank methods by, micro_f1 (default), macro_f1, rarest_f1 or accuracy.

    Returns:
        For one store, one result per method, sorted by mean test micro-F1 in descending order; see
        `Leaderboard.to_frame`. For several stores, their leaderboards, mean ranks of the methods, and the
        test of their differences; see `Leaderboards`.

    Raises:
        ConfigError: a method, setting or metric is unknown, or two stores hold the same data.
        DataError: the store is damaged or lacks a split.
        RunError: the folder contains other files, is in use by another process, or a training run failed
            (with several stores: all of them).

    Source: paired bootstrap over groups and seeds; p-values corrected by Holm, "A simple sequentially
        rejective multiple test procedure", Scandinavian Journal of Statistics 6 (1979). Friedman and Nemenyi
        tests: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7 (2006).

    Example:
        board = carat.compare("demo-store", "leaderboard", methods=["prior", "br"], seeds=2)
        board.to_frame()
    """
    folder = Path(out)
    stores = [open_store(x) for x in ([store] if isinstance(store, (Store, str, os.PathLike)) else store)]
    if not stores:
        raise ConfigError("compare: give at least one store")
    chosen = _choose_metric(metric, len(stores))
    for opened in stores:
        for split in ("train", "valid", "test"):
            check_measurable(opened, split)
    presets = experiments_of(choose_methods(methods), preset, settings or {})
    protocol = Protocol(presets, preset, dict(settings or {}), seeds, budget)
    if len(stores) > 1:
        return compare_stores(stores, folder, protocol, workers, metric=chosen, overwrite=overwrite)
    return compare_on(stores[0], folder, protocol, workers, overwrite=overwrite).board


def _choose_metric(metric: str | None, stores: int) -> str:
    """Check the metric by which methods are ranked; micro-F1 by default."""
    if metric is not None and stores < 2:
        raise ConfigError("--metric: ranks methods over several stores, and there is one")
    chosen = metric or "micro_f1"
    if chosen not in RANKED:
        hint = did_you_mean(chosen, RANKED) or f"; choose one of {', '.join(RANKED)}"
        raise ConfigError(f"--metric: methods cannot be ranked by '{chosen}'{hint}")
    return chosen
