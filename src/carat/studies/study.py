"""Trials in a journal file: what each one sets, what it reported, what became of it."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from carat.config.base import merge
from carat.config.experiment import Experiment, parse_experiment
from carat.utils.errors import RunError
from carat.utils.tables import Table

if TYPE_CHECKING:
    import optuna
    import pandas as pd

Sampler = Literal["random", "tpe"]
STARTUP = 4
"""Trials that are finished before others are compared with them."""


class Study:
    """Trials of one experiment, kept in a journal file: the same after an interruption.

    The first trial is the experiment itself, the others are drawn from a space, each by a seed of its own: at
    random, so that neither an interruption nor the order in which they end changes them, or in view of those
    that have ended (`tpe`).

    Args:
        name: of the study in the journal.
        experiment: where to start.
        space: distributions by key, e.g. `training.learning_rate`.
        journal: file to make or to go on with; no other process is at work in it.
        sampler: how trials are drawn.

    Raises:
        RunError: the journal is damaged.
    """

    def __init__(
        self,
        name: str,
        experiment: Experiment,
        space: Mapping[str, optuna.distributions.BaseDistribution],
        journal: Path,
        sampler: Sampler = "random",
    ) -> None:
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.name, self.experiment, self.space, self.sampler = name, experiment, dict(space), sampler
        journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)  # of a process that was killed
        try:
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=1),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{journal}: damaged ({error}); --overwrite starts anew") from error

    def draw(self, count: int) -> None:
        """Draw trials until there are so many, one if there is nothing to draw."""
        import optuna

        for number in range(len(self._study.trials), count if self.space else 1):
            if number == 0:
                self._study.add_trial(optuna.create_trial(state=optuna.trial.TrialState.RUNNING, params={}))
                continue
            seed = zlib.crc32(f"{self.name} {number}".encode())
            if self.sampler == "tpe":
                self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
            else:
                self._study.sampler = optuna.samplers.RandomSampler(seed)
            self._study.ask(self.space)

    @property
    def trials(self) -> list[dict[str, Any]]:
        """What each trial sets, by key."""
        return [dict(trial.params) for trial in self._study.trials]

    def experiments(self) -> list[Experiment]:
        """Of each trial."""
        return [with_settings(self.experiment, settings) for settings in self.trials]

    @property
    def best(self) -> int:
        """Number of the best trial that ran to its end; the first one if none did."""
        values = [
            trial.value if trial.state.name == "COMPLETE" and trial.value is not None else -1.0
            for trial in self._study.trials
        ]
        return values.index(max(values))

    def state(self, number: int) -> str:
        """Of a trial: "running", "complete", "pruned" or "fail"."""
        return str(self._study.trials[number].state.name).lower()

    def value(self, number: int) -> float | None:
        """Validation micro-F1 of a trial; None if it failed or was not finished."""
        found = self._study.trials[number]
        return found.value if found.state.name == "COMPLETE" else None

    def reported(self, number: int) -> dict[int, float]:
        """Validation micro-F1 of a trial by epoch, from 1."""
        return dict(self._study.trials[number].intermediate_values)

    def to_frame(self) -> pd.DataFrame:
        """One row per trial, in the order in which they were drawn.

        Returns:
            Columns `trial`, `state`, `micro_f1` (validation, of the best epoch so far; NaN before the first
            one), `epochs`, then the value of each key of the space.

        Raises:
            CaratError: pandas is not installed.
        """
        return Table(*self._rows()).to_frame()

    def _repr_html_(self) -> str:
        return Table(*self._rows(), "Trials, validation micro-F1", digits=3).to_html()

    def _rows(self) -> tuple[list[str], list[list[Any]]]:
        rows = []
        for number, settings in enumerate(self.trials):
            value, reported = self.value(number), self.reported(number)
            shown = value if value is not None else max(reported.values(), default=float("nan"))
            chosen = [settings.get(key, value_at(self.experiment, key)) for key in self.space]
            rows.append([number, self.state(number), shown, max(reported, default=0), *chosen])
        return ["trial", "state", "micro_f1", "epochs", *self.space], rows

    def report(self, number: int, epoch: int, value: float) -> bool:
        """Note a trial's validation micro-F1 of an epoch; answers whether most others were better."""
        import optuna

        trial = optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)
        trial.report(value, epoch)
        return bool(trial.should_prune())

    def tell(self, number: int, value: float | None, *, pruned: bool = False) -> None:
        """Note the validation micro-F1 of a trial; None if it failed or was ended early."""
        import optuna

        if self.state(number) == "running":
            states = optuna.trial.TrialState
            failed = states.PRUNED if pruned else states.FAIL
            self._study.tell(number, value, state=failed if value is None else states.COMPLETE)


def value_at(experiment: Experiment, key: str) -> Any:
    """The value of a dotted key; None where the experiment has no such key."""
    value: Any = experiment.model_dump()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """The experiment with other values, by dotted key.

    Raises:
        ConfigError: unknown key, or a value out of range.
    """
    values = experiment.model_dump()
    for key, value in settings.items():
        changes: Any = value
        for part in reversed(key.split(".")):
            changes = {part: changes}
        values = merge(values, changes)
    return parse_experiment(values, "trial")
