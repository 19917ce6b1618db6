"""`carat ablate`, `sweep` and `compare`: studies of many training runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

from carat.cli.app import Options, Overwrite, Shared, Workers, app, cores, resolve, takes_experiment
from carat.config.base import merge, read_yaml
from carat.utils.logging import logger

Count = Annotated[int, Parameter(validator=Number(gte=1, lte=100_000))]


@Parameter(name="*")
@dataclass(frozen=True)
class StartOptions:
    """The experiment of the first trial."""

    experiment_file: Path | None = None
    """YAML of the settings shared by all trials, as for `carat train`."""
    method: str | None = None
    """Method to tune; defaults to carat."""
    preset: str | None = None
    """Preset: paper (default), official, small or text."""


@Parameter(name="*", group=Group("Search", sort_key=1))
@dataclass(frozen=True)
class SearchOptions:
    """Sampling and pruning of trials."""

    trials: Count = 20
    """Number of trials, including the experiment itself."""
    sampler: Literal["random", "tpe"] = "random"
    """random gives the same trials on every machine; tpe (Optuna) learns from the finished ones."""
    prune: bool = True
    """Stop trials that are worse than the median of the others at the same epoch."""


@Parameter(name="*", group=Group("Workers", sort_key=2))
@dataclass(frozen=True)
class WorkerOptions:
    """Workers that run the trials."""

    workers: Workers = None
    """Number of parallel training runs, one core each; defaults to the number of cores."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray (pip install 'carat-emotion[ray]')."""
    address: str | None = None
    """Address of a Ray cluster, e.g. ray://head:10001 or auto; by default one is started on this machine."""


@Parameter(name="*", group=Group("Methods", sort_key=1))
@dataclass(frozen=True)
class CompareOptions:
    """Methods to compare, and their settings."""

    methods: list[str] | None = None
    """Names of methods, see `carat methods`; defaults to all."""
    preset: str = "small"
    """Preset of every method: small or paper."""
    settings: Path | None = None
    """YAML of changes to the preset: sections of an experiment under `all` or the name of a method."""
    budget: Count = 1
    """Number of trials of each method on validation; the first is its preset."""
    metric: Literal["micro_f1", "macro_f1", "rarest_f1", "accuracy"] | None = None
    """What several stores rank methods by; defaults to micro_f1."""


@app.command
@takes_experiment
def ablate(
    experiment_file: Path | None = None,
    /,
    *,
    data: Path,
    out: Path,
    preset: str | None = None,
    seeds: Count = 3,
    workers: Workers = None,
    overwrite: Overwrite = False,
    experiment: Options = None,
) -> None:
    """Train CARAT without each component, with fewer modalities, and with each released-code deviation.

    Writes test metrics with the paired difference to the full method: ablation.md, .csv and .svg. After an
    interruption the same command resumes.

    **Examples**

        carat ablate --data demo-store --out ablation --seeds 2

        carat ablate --data mosei --out ablation --preset paper --seeds 5 --workers 16

    Parameters
    ----------
    experiment_file
        YAML of the full method, as for `carat train`.
    data
        Folder of the store, with splits train, valid and test.
    out
        Folder to create or resume.
    preset
        Preset of the full method; defaults to small.
    seeds
        Number of training runs of each variant, with consecutive seeds from that of the experiment.
    workers
        Number of parallel training runs, one core each; defaults to the number of cores.
    """
    from carat.studies.ablation import ablate as run_ablation

    full = resolve(experiment_file, preset, experiment, default="small")
    run_ablation(full, data, out, seeds=seeds, workers=cores(workers), overwrite=overwrite)
    print((out / "ablation.md").read_text(encoding="utf-8"))
    logger.info(f"table → {out / 'ablation.md'}, {out / 'ablation.csv'}")
    logger.info(f"figure → {out / 'ablation.svg'}")


@app.command
@takes_experiment
def sweep(
    space: Path,
    /,
    *,
    data: Path,
    out: Path,
    start: StartOptions | None = None,
    search: SearchOptions | None = None,
    pool: WorkerOptions | None = None,
    overwrite: Overwrite = False,
    experiment: Options = None,
) -> None:
    """Tune the settings of a method on validation, and write a table and the best experiment file.

    The first trial is the experiment itself. After an interruption the same command resumes; with more
    --trials it continues a finished sweep. The search space is YAML, with choices or a range by key:

        method.latent: [32, 64, 128]
        training.learning_rate: {low: 1.0e-5, high: 1.0e-3, log: true}

    **Examples**

        carat sweep space.yaml --data demo-store --out sweep --preset small --trials 20

        carat train sweep/best.yaml --data demo-store --out best-run

        carat sweep space.yaml --data mosei --out sweep --trials 100 --sampler tpe --workers 8

        carat sweep space.yaml --data mosei --out sweep --engine ray --address ray://head:10001

    Parameters
    ----------
    space
        YAML file of the search space.
    data
        Folder of the store, with splits train and valid.
    out
        Folder to create or resume; on a cluster, on a shared file system.
    """
    from carat.studies.sweep import sweep as run_sweep

    start, search, pool = start or StartOptions(), search or SearchOptions(), pool or WorkerOptions()
    study = run_sweep(
        space,
        data,
        out,
        resolve(start.experiment_file, start.preset, experiment, method=start.method),
        trials=search.trials,
        workers=cores(pool.workers),
        engine=pool.engine,
        address=pool.address,
        sampler=search.sampler,
        prune=search.prune,
        overwrite=overwrite,
    )
    print((out / "study.md").read_text(encoding="utf-8"))
    logger.info(f"best: trial {study.best} → {out / 'best.yaml'}")


@app.command
def compare(
    *,
    data: list[Path],
    out: Path,
    compared: CompareOptions | None = None,
    seeds: Count = 5,
    workers: Workers = None,
    overwrite: Overwrite = False,
    shared: Shared = None,
) -> None:
    """Tune, train and evaluate methods under equal conditions, and write a leaderboard (Markdown, CSV, HTML).

    Every method gets the same number of trials on validation, and the same seeds. Reports test metrics with
    95 % intervals, the paired difference to CARAT, F1 by label, and results with missing modalities. After
    an interruption the same command resumes.

    Several stores get a leaderboard each, and one table over all of them with mean ranks, the Friedman test
    and a critical-difference diagram (comparison.md, .json, .html).

    **Examples**

        carat compare --data demo-store --out leaderboard --methods all --seeds 2

        carat compare --data demo-store --out leaderboard --methods carat mult br --budget 8

        carat compare --data mosei --out leaderboard --preset paper --settings mine.yaml --data.truncation

        carat compare --data mosei iemocap meld my-store own-clips --out leaderboards --metric macro_f1

    Parameters
    ----------
    data
        Folder of the store, with splits train, valid and test; or several of them.
    out
        Folder to create or resume.
    seeds
        Number of training runs of each method with its best settings, with consecutive seeds.
    workers
        Number of parallel training runs, one core each; defaults to the number of cores.
    """
    from carat.studies.leaderboard.comparison import compare as run_comparison

    compared = compared or CompareOptions()
    settings = read_yaml(compared.settings) if compared.settings is not None else {}
    if shared is not None:
        settings["all"] = merge(settings.get("all") or {}, shared.model_dump(exclude_unset=True))
    run_comparison(
        data,
        out,
        methods=compared.methods or ["all"],
        preset=compared.preset,
        settings=settings,
        seeds=seeds,
        budget=compared.budget,
        workers=cores(workers),
        overwrite=overwrite,
        metric=compared.metric,
    )
    files = ["leaderboard.md", "leaderboard.csv", "costs.csv", "leaderboard.html"]
    if len(data) > 1:
        files = ["comparison.md", "comparison.json", "comparison.html"]
    print((out / files[0]).read_text(encoding="utf-8"))
    for name in files:
        logger.info(f"→ {out / name}")
