"""What a sweep looks for, and where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import chain
from typing import TYPE_CHECKING, Any

from carat.config.base import read_yaml
from carat.config.experiment import Experiment
from carat.config.renamed import RENAMED
from carat.studies.study import with_settings
from carat.utils.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    import optuna

RANGE = {"low", "high", "log", "step"}


def read_space(
    given: Mapping[str, Any] | str | os.PathLike[str], experiment: Experiment
) -> dict[str, optuna.distributions.BaseDistribution]:
    """Distributions by dotted key: a list of choices, or `low` and `high` with `log` or `step`.

    Args:
        given: a mapping, or a YAML file that holds one.
        experiment: which must accept every value.

    Raises:
        ConfigError: unreadable, an unknown key, or values that the experiment refuses.
    """
    file = "space" if isinstance(given, Mapping) else given
    space = {}
    for written, values in _flat(given if isinstance(given, Mapping) else read_yaml(given)):
        key = RENAMED[written].key if written in RENAMED else written
        try:
            distribution = _distribution(values)
            for value in _ends(values):
                with_settings(experiment, {key: value})
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{file}: {key}: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{file}: {str(error).removeprefix('trial: ')}") from error
        space[key] = distribution
    if not space:
        raise ConfigError(f"{file}: nothing to try; give choices or a range by key, as in --help")
    return space


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested keys as dotted ones."""
    parts = [
        [(f"{prefix}{key}", value)]
        if not isinstance(value, Mapping) or {"low", "high"} & value.keys()
        else _flat(value, f"{prefix}{key}.")
        for key, value in values.items()
    ]
    return list(chain.from_iterable(parts))


def _distribution(values: Any) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if isinstance(values, list):
        if not values or any(isinstance(value, list | dict) for value in values):
            raise ValueError("expected a list of plain values")
        return distributions.CategoricalDistribution(values)
    if not isinstance(values, Mapping) or not {"low", "high"} <= values.keys():
        raise ValueError("expected a list of choices, or low and high")
    for key in values.keys() - RANGE:
        raise ValueError(f"unknown '{key}'{did_you_mean(key, RANGE)}")
    low, high = values["low"], values["high"]
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in (low, high)):
        raise ValueError(
            f"low and high are to be numbers, found {low!r} and {high!r}; write 1.0e-4, not 1e-4"
        )
    log, step = bool(values.get("log", False)), values.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=log, step=step or 1)
    return distributions.FloatDistribution(low, high, log=log, step=step)


def _ends(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values["low"], values["high"]]
