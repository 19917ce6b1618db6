"""The same number of trials for every method, chosen before the first is trained."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from carat.config import Experiment
from carat.sections import merge, parse

if TYPE_CHECKING:
    import optuna

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
    """What is tuned of an experiment, by key: learning rate and dropouts, or the penalty of a regression.

    Nothing for a method that has nothing to tune.
    """
    section = experiment.method.model_dump()
    if "strength" in section:
        return {"method.strength": Range(*STRENGTHS, log=True)}
    shares = dict.fromkeys(_dropouts(section, "method"), Range(0.0, LARGEST_DROPOUT, log=False))
    if section.keys() <= {"name"}:
        return {}
    rate = experiment.training.learning_rate
    return {"training.learning_rate": Range(rate / WIDER, rate * WIDER, log=True)} | shares


def _dropouts(section: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _dropouts(value, f"{prefix}.{key}")
        elif "dropout" in key:
            yield f"{prefix}.{key}"


class Study:
    """Trials of one method, kept in a journal file: the same after an interruption.

    The first trial is the experiment itself, the others are drawn at random from `search_space`, each by a
    seed of its own, so that neither an interruption nor the order in which they end changes them.

    Args:
        method: its name.
        experiment: where to start.
        budget: how many trials; fewer if there is nothing to tune.
        journal: file to make or to go on with.
    """

    def __init__(self, method: str, experiment: Experiment, budget: int, journal: Path) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.experiment = experiment
        space = search_space(experiment)
        backend = JournalFileBackend(str(journal))
        self._study = optuna.create_study(
            storage=optuna.storages.JournalStorage(backend),
            study_name=method,
            direction="maximize",
            load_if_exists=True,
        )
        ranges: dict[str, optuna.distributions.BaseDistribution] = {
            key: optuna.distributions.FloatDistribution(x.low, x.high, log=x.log) for key, x in space.items()
        }
        for number in range(len(self._study.trials), budget if space else 1):
            if number == 0:
                self._study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.RUNNING, params={}))
                continue
            self._study.sampler = optuna.samplers.RandomSampler(zlib.crc32(f"{method} {number}".encode()))
            self._study.ask(ranges)

    @property
    def trials(self) -> list[dict[str, float]]:
        """What each trial sets, by key."""
        return [dict(trial.params) for trial in self._study.trials]

    def experiments(self) -> list[Experiment]:
        """Of each trial."""
        return [self._with(settings) for settings in self.trials]

    def _with(self, settings: Mapping[str, float]) -> Experiment:
        values = self.experiment.model_dump()
        for key, value in settings.items():
            changes: Any = value
            for part in reversed(key.split(".")):
                changes = {part: changes}
            values = merge(values, changes)
        return parse(Experiment, values, "trial")

    @property
    def best(self) -> int:
        """Number of the best trial; the first one if all failed."""
        values = [-1.0 if trial.value is None else trial.value for trial in self._study.trials]
        return values.index(max(values))

    def tell(self, number: int, value: float | None) -> None:
        """Note the validation micro-F1 of a trial; None if it failed."""
        import optuna

        trial = self._study.trials[number]
        if trial.state == optuna.trial.TrialState.RUNNING:
            state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
            self._study.tell(number, value, state=state)
