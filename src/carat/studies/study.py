"""Hyperparameter trials in an Optuna journal file."""

from __future__ import annotations

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from carat.config.base import merge
from carat.config.experiment import Experiment, parse_experiment
from carat.utils.errors import RunError
from carat.utils.reading import read_bytes
from carat.utils.tables import Table

if TYPE_CHECKING:
    import optuna
    import pandas as pd

Sampler = Literal["random", "tpe"]
MAX_JOURNAL = 1 << 30
"""Limit of the size of a journal in bytes."""
CORPORA = "corpora"
"""Attribute of a trial with its validation metrics by corpus."""
STARTUP = 4
"""Number of completed trials before pruning starts."""


class Study:
    """Trials of one experiment, stored in a journal file so that an interrupted study can be resumed.

    The first trial is the experiment itself. The others are sampled from the search space, each with its own
    seed: independently (`random`), so that they depend neither on interruptions nor on the order of
    completion, or conditioned on the completed trials (`tpe`).

    Args:
        name: name of the study in the journal.
        experiment: base experiment.
        space: distributions by dotted key, e.g. `training.learning_rate`.
        journal: journal file, new or to be resumed; must not be in use by another process.
        sampler: random or tree-structured Parzen estimator.

    Raises:
        RunError: the journal is corrupt.
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
        journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)  # left by a killed process
        _cut_torn_line(journal)
        try:
            self._study = optuna.create_study(
                storage=optuna.storages.JournalStorage(JournalFileBackend(str(journal))),
                study_name=name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=1),
            )
        except OSError:
            raise
        except Exception as error:  # whatever Optuna raises on entries that it did not write
            raise RunError(f"{journal}: corrupt journal ({error}); use --overwrite to start over") from error

    def draw(self, count: int) -> None:
        """Sample trials until the study has `count` of them, or one if the search space is empty."""
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
        """Hyperparameters of each trial by dotted key; empty for the base experiment."""
        return [dict(trial.params) for trial in self._study.trials]

    def experiments(self) -> list[Experiment]:
        """Build the experiment of each trial."""
        return [with_settings(self.experiment, settings) for settings in self.trials]

    @property
    def best(self) -> int:
        """Index of the best completed trial; 0 if none was completed."""
        values = [
            trial.value if trial.state.name == "COMPLETE" and trial.value is not None else -1.0
            for trial in self._study.trials
        ]
        return values.index(max(values))

    def state(self, number: int) -> str:
        """Return the state of a trial: "running", "complete", "pruned" or "fail"."""
        return str(self._study.trials[number].state.name).lower()

    def value(self, number: int) -> float | None:
        """Return the validation micro-F1 of a completed trial; None for others."""
        trial = self._study.trials[number]
        return trial.value if trial.state.name == "COMPLETE" else None

    def reported(self, number: int) -> dict[int, float]:
        """Return the validation micro-F1 of a trial by epoch, counted from 1."""
        return dict(self._study.trials[number].intermediate_values)

    def to_frame(self) -> pd.DataFrame:
        """Convert the trials to a data frame, in sampling order.

        Returns:
            Columns `trial`, `state`, `micro_f1` (validation, best epoch so far; NaN before the first one),
            `epochs`, and one for each key of the search space.

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
        """Record the validation micro-F1 of an epoch; return whether the trial should be pruned.

        Args:
            number: index of the trial.
            epoch: epoch, counted from 1.
            value: validation micro-F1.
        """
        import optuna

        trial = optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)
        trial.report(value, epoch)
        return bool(trial.should_prune())

    def corpora(self, number: int) -> dict[str, dict[str, float | None]]:
        """Return the validation metrics of a trial by corpus, if they were recorded."""
        return dict(self._study.trials[number].user_attrs.get(CORPORA, {}))

    def tell(
        self,
        number: int,
        value: float | None,
        *,
        pruned: bool = False,
        corpora: Mapping[str, Mapping[str, float | None]] | None = None,
    ) -> None:
        """Record the result of a running trial; has no effect on others.

        Args:
            number: index of the trial.
            value: validation micro-F1; None if the trial failed or was pruned.
            pruned: whether a trial without a value was pruned.
            corpora: validation metrics by corpus, in stores of several.
        """
        import optuna

        if self.state(number) == "running":
            if corpora:
                trial = optuna.trial.Trial(self._study, self._study.trials[number]._trial_id)
                trial.set_user_attr(CORPORA, corpora)
            states = optuna.trial.TrialState
            unfinished = states.PRUNED if pruned else states.FAIL
            self._study.tell(number, value, state=unfinished if value is None else states.COMPLETE)


def _cut_torn_line(journal: Path) -> None:
    """Cut off an incomplete last line, left by a full disk, to which nothing could be appended."""
    if not os.path.lexists(journal):
        return
    content = read_bytes(journal, RunError, MAX_JOURNAL)
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(journal, whole)


def value_at(experiment: Experiment, key: str) -> Any:
    """Look up a dotted key in an experiment; None if it has no such key."""
    value: Any = experiment.model_dump()
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def with_settings(experiment: Experiment, settings: Mapping[str, Any]) -> Experiment:
    """Return a copy of an experiment with other values.

    Args:
        experiment: base experiment.
        settings: values by dotted key.

    Raises:
        ConfigError: a key is unknown, or a value is out of range.
    """
    values = experiment.model_dump()
    for key, value in settings.items():
        changes: Any = value
        for part in reversed(key.split(".")):
            changes = {part: changes}
        values = merge(values, changes)
    return parse_experiment(values, "trial")
