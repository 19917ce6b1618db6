"""The result of `train`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from carat.config.experiment import Experiment
from carat.runs.card import RunCard
from carat.runs.description import describe_run, run_rows
from carat.utils.tables import Table


@dataclass(frozen=True, repr=False)
class TrainedRun:
    """A finished training run, accepted wherever a run folder is (`os.PathLike`).

    Args:
        folder: run folder.
        card: labels, modalities, thresholds and validation metrics.
        experiment: experiment of the run.

    Example:
        run = carat.train({"preset": "small"}, store="demo-store", out="my-run")
        carat.evaluate(run, "demo-store").metrics.micro_f1
    """

    folder: Path
    card: RunCard
    experiment: Experiment

    def __fspath__(self) -> str:
        return str(self.folder)

    def __repr__(self) -> str:
        return describe_run("TrainedRun", self.folder, self.card, self.experiment)

    def _repr_html_(self) -> str:
        return Table(["run", ""], run_rows(self.folder, self.card, self.experiment), digits=3).to_html()
