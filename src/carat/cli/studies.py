"""`carat ablate`, `compare`, `explain`: what makes a method good, and what it does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from carat.cli.app import Options, Overwrite, Shared, app, resolve, takes_experiment
from carat.config.base import merge, read_yaml
from carat.utils.logging import logger
from carat.utils.parallel.tasks import Engine


@app.command
@takes_experiment
def ablate(
    experiment_file: Path | None = None,
    /,
    *,
    data: Path,
    out: Path,
    preset: str | None = None,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 3,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    overwrite: Overwrite = False,
    experiment: Options = None,
) -> None:
    """Train CARAT without each of its parts, with fewer modalities, and with each quirk of the released code.

    Writes a table of test metrics with the paired difference to the full method: ablation.md, .csv and .svg.
    Finished trainings are not repeated: after an interruption the same command goes on.

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
        Folder to make, or to go on with.
    preset
        Starting point of the full method: small (the default here), paper, or another.
    seeds
        Trainings of each variant, with seeds counted from the experiment's.
    workers
        Trainings at a time, one core each; as many as there are cores by default.
    """
    from carat.studies.ablation import ablate as run_ablation

    full = resolve(experiment_file, preset, experiment, default="small")
    run_ablation(full, data, out, seeds=seeds, workers=workers or os.cpu_count() or 1, overwrite=overwrite)
    print((out / "ablation.md").read_text(encoding="utf-8"))
    logger.info(f"table → {out / 'ablation.md'}, {out / 'ablation.csv'}")
    logger.info(f"picture → {out / 'ablation.svg'}")


@app.command
@takes_experiment
def sweep(
    space: Path,
    /,
    *,
    data: Path,
    out: Path,
    trials: Annotated[int, Parameter(validator=Number(gte=1))] = 20,
    experiment_file: Path | None = None,
    method: str | None = None,
    preset: str | None = None,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    engine: Engine = "local",
    address: str | None = None,
    sampler: Literal["random", "tpe"] = "random",
    prune: bool = True,
    overwrite: Overwrite = False,
    experiment: Options = None,
) -> None:
    """Try many settings of a method on validation, and write a table and the best experiment file.

    The first trial is the experiment as it is. A trial whose worker dies goes on where it was; after an
    interruption the same command goes on, and with more --trials it goes on with a finished sweep. The space
    is YAML, choices or a range by key:

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
        YAML file of what to try.
    data
        Folder of the store, with splits train and valid.
    out
        Folder to make, or to go on with; on a cluster one that all machines see.
    trials
        How many settings, the experiment as it is included.
    experiment_file
        YAML with what all trials have in common, as for `carat train`.
    method
        Which method, carat by default.
    preset
        Starting point: paper (the default), official, small or text.
    workers
        Trainings at a time, one core each; as many as there are cores by default.
    engine
        Processes of this machine, or Ray (pip install 'carat[ray]'): one that this command starts, or a
        cluster's.
    address
        Of a Ray cluster, e.g. ray://head:10001 or auto.
    sampler
        random is the same on every machine; tpe draws in view of the trials that have ended.
    prune
        End trials early that are worse than the median of the others at the same epoch.
    """
    from carat.studies.sweep import sweep as run_sweep

    study = run_sweep(
        space,
        data,
        out,
        resolve(experiment_file, preset, experiment, method=method),
        trials=trials,
        workers=workers or os.cpu_count() or 1,
        engine=engine,
        address=address,
        sampler=sampler,
        prune=prune,
        overwrite=overwrite,
    )
    print((out / "study.md").read_text(encoding="utf-8"))
    logger.info(f"best: trial {study.best} → {out / 'best.yaml'}")


@app.command
def compare(
    *,
    data: Path,
    out: Path,
    methods: list[str] | None = None,
    preset: str = "small",
    settings: Path | None = None,
    seeds: Annotated[int, Parameter(validator=Number(gte=1))] = 5,
    budget: Annotated[int, Parameter(validator=Number(gte=1))] = 1,
    workers: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    overwrite: Overwrite = False,
    shared: Shared = None,
) -> None:
    """Tune, train and judge methods alike, and write a leaderboard: Markdown, CSV and one HTML page.

    Every method gets the same number of trials on validation, then every seed. Test metrics come with 95 %
    intervals, the paired difference to CARAT, F1 by label, and how they fall when modalities are missing.
    Finished trainings are not repeated: after an interruption the same command goes on.

    **Examples**

        carat compare --data demo-store --out leaderboard --methods all --seeds 2

        carat compare --data demo-store --out leaderboard --methods carat mult br --budget 8

        carat compare --data mosei --out leaderboard --preset paper --settings mine.yaml --data.truncation

    Parameters
    ----------
    data
        Folder of the store, with splits train, valid and test.
    out
        Folder to make, or to go on with.
    methods
        Names, as `carat methods` lists them; all by default.
    preset
        Where every method starts: small or paper.
    settings
        YAML of what differs from the preset: parts of an experiment under `all` or the name of a method.
    seeds
        Trainings of each method with its best settings, with seeds counted from the experiment's.
    budget
        Trials of each method on validation; the first are the settings it starts with.
    workers
        Trainings at a time, one core each; as many as there are cores by default.
    """
    from carat.studies.leaderboard.comparison import compare as run_comparison

    given = read_yaml(settings) if settings is not None else {}
    if shared is not None:
        given["all"] = merge(given.get("all") or {}, shared.model_dump(exclude_unset=True))
    run_comparison(
        data,
        out,
        methods=methods or ["all"],
        preset=preset,
        settings=given,
        seeds=seeds,
        budget=budget,
        workers=workers or os.cpu_count() or 1,
        overwrite=overwrite,
    )
    print((out / "leaderboard.md").read_text(encoding="utf-8"))
    for name in ("leaderboard.md", "leaderboard.csv", "costs.csv", "leaderboard.html"):
        logger.info(f"→ {out / name}")


@app.command
def explain(
    run: Path,
    /,
    *,
    data: Path,
    out: Path,
    split: str = "test",
    samples: list[str] | None = None,
    points: Annotated[int, Parameter(validator=Number(gte=20))] = 1500,
    sweep: Path | None = None,
    overwrite: Overwrite = False,
) -> None:
    """Draw what a run does: t-SNE of its latents, which modality carries which label, where labels look.

    Pictures are SVG, with their numbers as CSV beside them: latents, contributions, co_occurrence,
    attention_<id>, and sensitivity where there is a sweep.

    **Examples**

        carat explain demo-run --data demo-store --out pictures

        carat explain demo-run --data demo-store --out pictures --samples s002551 s002560

        carat explain demo-run --data demo-store --out pictures --sweep my-runs

    Parameters
    ----------
    run
        Folder made by `carat train`.
    data
        Folder of a store with the run's labels.
    out
        Folder to make.
    split
        Which split.
    samples
        Ids of samples whose attention is drawn; by default three, those that the run gets right first.
    points
        How many points t-SNE shows.
    sweep
        Folder of runs whose settings differ: draws how validation micro-F1 depends on each.
    """
    from carat.inference.explain.explanation import explain as draw

    for file in draw(
        run, data, out, split=split, samples=samples, points=points, sweep=sweep, overwrite=overwrite
    ):
        logger.info(str(file))
