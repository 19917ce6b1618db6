"""Search spaces of sweeps."""

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
    source: Mapping[str, Any] | str | os.PathLike[str], experiment: Experiment
) -> dict[str, optuna.distributions.BaseDistribution]:
    """Read a search space: a list of choices, or `low` and `high` with `log` or `step`, by dotted key.

    Args:
        source: a mapping, or a YAML file that contains one.
        experiment: base experiment; every value of the space must be valid for it.

    Returns:
        Distributions by dotted key.

    Raises:
        ConfigError: the file cannot be read, or a key or value is invalid.
    """
    origin = "space" if isinstance(source, Mapping) else source
    space = {}
    for name, values in _flatten(source if isinstance(source, Mapping) else read_yaml(source)):
        key = RENAMED[name].key if name in RENAMED else name
        try:
            distribution = _distribution(values)
            for value in _test_values(values):
                with_settings(experiment, {key: value})
        except (ValueError, TypeError) as error:
            raise ConfigError(f"{origin}: {key}: {error}") from error
        except ConfigError as error:
            raise ConfigError(f"{origin}: {str(error).removeprefix('trial: ')}") from error
        space[key] = distribution
    if not space:
        raise ConfigError(
            f"{origin}: the search space is empty; specify choices or a range by key, see --help"
        )
    return space


def _flatten(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Flatten nested mappings to pairs of dotted key and value."""
    parts = [
        [(f"{prefix}{key}", value)]
        if not isinstance(value, Mapping) or {"low", "high"} & value.keys()
        else _flatten(value, f"{prefix}{key}.")
        for key, value in values.items()
    ]
    return list(chain.from_iterable(parts))


def _distribution(values: Any) -> optuna.distributions.BaseDistribution:
    from optuna import distributions

    if isinstance(values, list):
        if not values or any(isinstance(value, list | dict) for value in values):
            raise ValueError("expected a non-empty list of scalars")
        return distributions.CategoricalDistribution(values)
    if not isinstance(values, Mapping) or not {"low", "high"} <= values.keys():
        raise ValueError("expected a list of choices, or low and high")
    for key in values.keys() - RANGE:
        raise ValueError(f"unknown key '{key}'{did_you_mean(key, RANGE)}")
    low, high = values["low"], values["high"]
    if any(isinstance(x, bool) or not isinstance(x, int | float) for x in (low, high)):
        raise ValueError(
            f"low and high must be numbers, found {low!r} and {high!r}; in YAML write 1.0e-4, not 1e-4"
        )
    log, step = bool(values.get("log", False)), values.get("step")
    if isinstance(low, int) and isinstance(high, int):
        return distributions.IntDistribution(low, high, log=log, step=step or 1)
    return distributions.FloatDistribution(low, high, log=log, step=step)


def _test_values(values: Any) -> list[Any]:
    """Choices, or the bounds of a range."""
    return values if isinstance(values, list) else [values["low"], values["high"]]
