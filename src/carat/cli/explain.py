"""`carat explain`: figures of what a run has learned."""

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
    """Draw what a run does: t-SNE of its latents, which modality carries which label, label attention.

    Figures are SVG, with their numbers as CSV beside them: latents, contributions, co_occurrence,
    attention_<id>, and sensitivity if there is a sweep.

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
        Folder to create.
    split
        Split whose samples are drawn.
    samples
        Ids of samples whose attention is drawn; by default three, those predicted exactly first.
    points
        Number of t-SNE points.
    sweep
        Folder of runs whose settings differ: draws how validation micro-F1 depends on each.
    """
    from carat.inference.explain.explanation import explain as draw

    for file in draw(
        run, data, out, split=split, samples=samples, points=points, sweep=sweep, overwrite=overwrite
    ):
        logger.info(str(file))
