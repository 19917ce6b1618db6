"""The same number of trials for every method, chosen before the first is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carat.config.baselines import PooledConfig, PriorConfig
from carat.config.experiment import Experiment
from carat.studies.study import Study

WIDER = 5.0
"""The learning rate is tried from its start divided to its start multiplied by this."""
STRENGTHS = (1e-3, 1e2)
"""Inverse penalties of logistic regressions."""
LARGEST_DROPOUT = 0.5


@dataclass(frozen=True)
class Range:
    """Where a setting is looked for; evenly, or evenly in its logarithm."""

    low: float
    high: float
    log: bool


def search_space(experiment: Experiment) -> dict[str, Range]:
    """The settings to tune, by key: learning rate and dropouts, or the penalty of a regression.

    Empty for a method that has nothing to tune.
    """
    if isinstance(experiment.method, PooledConfig):
        return {"method.strength": Range(*STRENGTHS, log=True)}
    if isinstance(experiment.method, PriorConfig):
        return {}
    dropouts = _dropouts(experiment.method.model_dump(), "method")
    rate = experiment.training.learning_rate
    return {
        "training.learning_rate": Range(rate / WIDER, rate * WIDER, log=True),
        **dict.fromkeys(dropouts, Range(0.0, LARGEST_DROPOUT, log=False)),
    }


def _dropouts(section: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _dropouts(value, f"{prefix}.{key}")
        elif "dropout" in key:
            yield f"{prefix}.{key}"


def open_study(method: str, experiment: Experiment, budget: int, journal: Path) -> Study:
    """So many trials of a method, the first of them the experiment itself; one if nothing can be tuned."""
    import optuna

    ranges = {
        key: optuna.distributions.FloatDistribution(x.low, x.high, log=x.log)
        for key, x in search_space(experiment).items()
    }
    study = Study(method, experiment, ranges, journal)
    study.draw(budget)
    return study
