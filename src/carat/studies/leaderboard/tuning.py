"""Search spaces for tuning; all trials are sampled before the first is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carat.config.baselines import PooledConfig, PriorConfig
from carat.config.experiment import Experiment
from carat.studies.study import Study

LEARNING_RATE_FACTOR = 5.0
"""The learning rate ranges from the preset's divided by this to the preset's multiplied by it."""
STRENGTHS = (1e-3, 1e2)
"""Range of the inverse L2 penalty of logistic regressions."""
MAX_DROPOUT = 0.5


@dataclass(frozen=True)
class Range:
    """Range of a hyperparameter, uniform or log-uniform."""

    low: float
    high: float
    log: bool


def search_space(experiment: Experiment) -> dict[str, Range]:
    """Build the search space of a method: learning rate and dropout, or the penalty of a regression.

    Returns:
        Ranges by dotted key; empty for a method without hyperparameters to tune.
    """
    if isinstance(experiment.method, PooledConfig):
        return {"method.strength": Range(*STRENGTHS, log=True)}
    if isinstance(experiment.method, PriorConfig):
        return {}
    dropouts = _dropouts(experiment.method.model_dump(), "method")
    rate = experiment.training.learning_rate
    return {
        "training.learning_rate": Range(rate / LEARNING_RATE_FACTOR, rate * LEARNING_RATE_FACTOR, log=True),
        **dict.fromkeys(dropouts, Range(0.0, MAX_DROPOUT, log=False)),
    }


def _dropouts(section: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _dropouts(value, f"{prefix}.{key}")
        elif "dropout" in key:
            yield f"{prefix}.{key}"


def open_study(method: str, experiment: Experiment, budget: int, journal: Path) -> Study:
    """Open the study of a method and sample its trials.

    Args:
        method: name of the method, and of the study in the journal.
        experiment: experiment of the preset, the first trial.
        budget: number of trials; a method without hyperparameters to tune has one.
        journal: journal file.
    """
    import optuna

    ranges = {
        key: optuna.distributions.FloatDistribution(x.low, x.high, log=x.log)
        for key, x in search_space(experiment).items()
    }
    study = Study(method, experiment, ranges, journal)
    study.draw(budget)
    return study
