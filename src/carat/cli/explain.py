"""`carat explain`: figures that explain a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from carat.cli.app import Overwrite, app
from carat.utils.logging import logger


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
    """Explain a run in figures: t-SNE of latents, contributions of modalities, label attention.

    Writes SVG figures with their data as CSV: latents, contributions, co_occurrence, attention_<id>, and
    sensitivity if --sweep is given.

    **Examples**

        carat explain demo-run --data demo-store --out pictures

        carat explain demo-run --data demo-store --out pictures --samples s002551 s002560

        carat explain demo-run --data demo-store --out pictures --sweep my-runs

    Parameters
    ----------
    run
        Folder created by `carat train`.
    data
        Folder of a store with the labels of the run.
    out
        Folder to create.
    split
        Split of the store.
    samples
        IDs of samples whose attention is drawn; defaults to three, preferably predicted exactly.
    points
        Maximum number of t-SNE points.
    sweep
        Folder of runs with different settings, for the sensitivity of validation micro-F1 to each.
    """
    from carat.inference.explain.explanation import explain as run_explain

    for file in run_explain(
        run, data, out, split=split, samples=samples, points=points, sweep=sweep, overwrite=overwrite
    ):
        logger.info(str(file))
