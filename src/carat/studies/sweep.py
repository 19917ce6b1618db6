"""Hyperparameter sweeps."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from carat.config.experiment import Experiment, ExperimentLike, as_experiment
from carat.data.store import Store, open_store
from carat.data.store.store import open_unchanged
from carat.evaluation.corpora import CAPTION
from carat.evaluation.formatting import decimal
from carat.studies.jobs import RUNS, claim_study, study_kind
from carat.studies.space import read_space
from carat.studies.study import Sampler, Study, value_at
from carat.utils.errors import RunError, StoppedError
from carat.utils.files import replace_file
from carat.utils.logging import logger
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Engine, Report, TaskFunction, TaskResult
from carat.utils.tables import Table

if TYPE_CHECKING:
    from carat.training.trained_run import TrainedRun

JOURNAL = "study.journal"
BEST = "best.yaml"
TABLE = "study"
SWEEP = study_kind("sweep", JOURNAL, f"{JOURNAL}.lock", BEST, f"{TABLE}.csv", f"{TABLE}.md")


@dataclass(frozen=True)
class Trial:
    """A trial as a task for a worker process."""

    experiment: Experiment
    folder: Path


@dataclass(frozen=True)
class Trained:
    """Validation metrics of a finished trial."""

    micro_f1: float | None
    corpora: dict[str, dict[str, float | None]]
    """Metrics by corpus, in stores of several; otherwise empty. None where undefined."""


def sweep(
    space: Mapping[str, Any] | str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    experiment: ExperimentLike,
    *,
    trials: int = 20,
    workers: int = 1,
    engine: Engine = "local",
    address: str | None = None,
    sampler: Sampler = "random",
    prune: bool = True,
    overwrite: bool = False,
) -> Study:
    """Search hyperparameters on the validation split and write study.csv, study.md and best.yaml.

    The objective is the validation micro-F1 of a trial's best epoch. Trials below the median of the others at
    the same epoch are pruned. Trials resume after the death of their worker, and the same call resumes an
    interrupted sweep.

    Args:
        space: choices or ranges by dotted key, as a mapping or a YAML file: `[32, 64]`, or
            `{"low": 1e-5, "high": 1e-3, "log": True}`.
        store: a store or its folder, with the splits train and valid.
        out: output folder, new or of a sweep to resume; on a cluster on a file system shared by all nodes.
        experiment: base experiment, which is also the first trial: an `Experiment`, a nested mapping or a
            YAML file.
        trials: number of trials, including the first; a larger number extends a completed sweep.
        workers: number of parallel training runs, one core each.
        engine: local processes or Ray.
        address: address of a Ray cluster; None starts one on this machine.
        sampler: see `Study`.
        prune: whether to prune trials.
        overwrite: replace an existing sweep.

    Returns:
        The study: `experiments()[best]` is the best experiment, `to_frame()` has one row per trial.

    Raises:
        ConfigError: the search space or the experiment is invalid.
        DataError: the store is damaged.
        RunError: the folder contains other files, is in use by another process, every trial failed, or one
            failed for want of room or memory, which leaves the others for the next call.

    Example:
        space = {"method.latent": [8, 16], "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True}}
        study = carat.sweep(space, "demo-store", "sweep", {"preset": "small"}, trials=3)
        study.experiments()[study.best].training.learning_rate
    """
    folder, path, opened = Path(out), Path(store), open_store(store)
    experiment = as_experiment(experiment)
    ranges = read_space(space, experiment)
    plan = {
        "store": opened.manifest.fingerprint,
        "space": {key: repr(value) for key, value in ranges.items()},
        "experiment": experiment.model_dump(mode="json"),
        "sampler": sampler,
    }
    with claim_study(SWEEP, folder, plan, overwrite):
        study = Study("sweep", experiment, ranges, folder / JOURNAL, sampler)
        todo = Todo(study, trials, folder)
        if todo.finished:
            logger.info(f"{todo.finished} of {trials} trials are already complete")
        results = run_tasks(
            _prepare_worker,
            (path.resolve(), opened.manifest.fingerprint),
            todo,
            workers,
            engine=engine,
            address=address,
            on_report=partial(_on_report, study, todo, prune),
        )
        with closing(results):
            for done, result in enumerate(results, start=todo.finished + 1):
                number = todo.numbers[result.index]
                outcome = _outcome(study, number, result)
                if result.environmental:
                    raise RunError(f"trial {number}: {outcome}; the same command tries it again")
                if not result.died:  # otherwise the same command tries it again
                    _record(study, number, result)
                logger.info(f"[{done}/{trials}] trial {number}: {outcome}")
                write_study(study, folder)
        write_study(study, folder)
    if study.value(study.best) is None:
        raise RunError(f"{folder}: every trial failed")
    return study


class Todo(Sequence[Trial]):
    """Incomplete trials, sampled when a worker is free.

    Args:
        study: the study.
        count: number of trials that the study should have.
        out: output folder of the sweep.
    """

    def __init__(self, study: Study, count: int, out: Path) -> None:
        self.study, self.out = study, out
        count = count if study.space else 1
        drawn = len(study.trials)
        self.numbers = [n for n in range(count) if n >= drawn or study.state(n) == "running"]
        self.finished = count - len(self.numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: Any) -> Any:
        number = self.numbers[index]
        self.study.draw(number + 1)
        return Trial(self.study.experiments()[number], self.out.resolve() / RUNS / f"trial{number:04}")


def _prepare_worker(store: Path, fingerprint: str) -> TaskFunction:
    """Set up a worker process that trains trials."""
    from carat.training.train import train

    def work(trial: Trial, report: Report) -> Trained | None:
        opened = open_unchanged(store, fingerprint)

        def after_epoch(row: dict[str, float]) -> bool:
            return report((int(row["epoch"]), row["valid/micro_f1"]))

        try:
            run = train(trial.experiment, opened, trial.folder, resume=True, after_epoch=after_epoch)
        except StoppedError:
            return None
        return Trained(run.card.validation["micro_f1"], _by_corpus(run, opened))

    return work


def _by_corpus(run: TrainedRun, store: Store) -> dict[str, dict[str, float | None]]:
    """Validation metrics of a run by corpus; empty for a single corpus."""
    if store.corpora is None:
        return {}
    from carat.evaluation.corpora import SHOWN, metrics_by_corpus
    from carat.evaluation.report import to_plain
    from carat.evaluation.thresholds import apply_thresholds
    from carat.inference.loading import load

    rows, scores, labels = load(run, "cpu", calibrated=False).score(store, "valid")
    predicted = apply_thresholds(scores, np.array(list(run.card.thresholds.values())))
    by_corpus = metrics_by_corpus(scores, predicted, labels, store.label_names, store.corpora[rows])
    found: dict[str, dict[str, float | None]] = {
        name: {metric: to_plain(float(getattr(x, metric))) for metric in SHOWN}
        for name, x in by_corpus.items()
    }
    return found


def _on_report(study: Study, todo: Todo, prune: bool, index: int, report: tuple[int, float]) -> bool:
    """Record the validation micro-F1 of an epoch; return whether to prune the trial."""
    epoch, value = report
    should_prune = math.isfinite(value) and study.report(todo.numbers[index], epoch, value)
    return prune and should_prune


def _record(study: Study, number: int, outcome: TaskResult) -> None:
    trained: Trained | None = outcome.result
    value = None if trained is None or trained.micro_f1 is None else trained.micro_f1
    finite = value is not None and math.isfinite(value)
    pruned = not outcome.problem and trained is None
    corpora = {} if trained is None else trained.corpora
    study.tell(number, value if finite else None, pruned=pruned, corpora=corpora)


def _outcome(study: Study, number: int, outcome: TaskResult) -> str:
    if outcome.problem:
        return f"failed: {outcome.problem}"
    if outcome.result is None:
        return f"pruned after epoch {max(study.reported(number))}"
    value = outcome.result.micro_f1
    return f"validation micro-F1 {float('nan') if value is None else value:.4f}"


def _corpus_table(study: Study, numbers: Sequence[int]) -> Table | None:
    """Table of the validation metrics by corpus of finished trials; None for a single corpus."""
    found = {number: corpora for number in numbers if (corpora := study.corpora(number))}
    if not found:
        return None
    records = [
        {"trial": number}
        | {name: " / ".join(_shown(x) for x in metrics.values()) for name, metrics in corpora.items()}
        for number, corpora in found.items()
    ]
    return Table.from_records(records)


def _shown(value: float | None) -> str:
    return decimal(float("nan") if value is None else value)


def write_study(study: Study, out: Path) -> None:
    """Write the trials as study.csv and study.md, and the best experiment as best.yaml."""
    keys = list(study.space)
    rows: list[dict[str, Any]] = []
    for number, settings in enumerate(study.trials):
        value, reported = study.value(number), study.reported(number)
        shown = value if value is not None else max(reported.values(), default=None)
        rows.append(
            {
                "trial": number,
                "state": study.state(number),
                "micro_f1": "" if shown is None else f"{shown:.4f}",
                "epochs": max(reported, default=0),
            }
            | {key: settings.get(key, value_at(study.experiment, key)) for key in keys}
        )
    rows.sort(key=lambda row: (row["state"] != "complete", -float(row["micro_f1"] or -1), row["trial"]))
    table = Table.from_records(rows)
    table.to_csv(out / f"{TABLE}.csv")
    text = f"# Trials\n\nSorted by validation micro-F1.\n\n{table.to_markdown()}\n"
    if by_corpus := _corpus_table(study, [row["trial"] for row in rows]):
        text += f"\n## Corpora\n\nValidation. {CAPTION}\n\n{by_corpus.to_markdown()}\n"
    replace_file(out / f"{TABLE}.md", text.encode())
    if study.value(study.best) is None:
        return
    best = study.experiments()[study.best].model_dump()
    replace_file(out / BEST, yaml.safe_dump(best, sort_keys=False, allow_unicode=True).encode())
