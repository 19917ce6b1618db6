"""`carat ensemble`."""

from __future__ import annotations

from pathlib import Path

from carat.cli.app import Overwrite, app
from carat.utils.logging import logger


@app.command
def ensemble(
    *runs: Path,
    data: Path,
    out: Path,
    overwrite: Overwrite = False,
) -> None:
    """Average the scores of trained runs, as one run with thresholds of its own.

    The members have the same labels, and the same features where they share modalities; methods may differ.
    Thresholds are searched on the validation split. To distill the ensemble into one run of a single size:
    `carat train --training.teacher ENSEMBLE`.

    **Examples**

        carat ensemble run0 run1 run2 --data demo-store --out three-runs

        carat train --preset small --data demo-store --out distilled --training.teacher three-runs

    Parameters
    ----------
    runs
        Folders of finished runs, at least two.
    data
        Folder of the store on whose validation split thresholds are searched.
    out
        Folder of the run to create.
    """
    from carat.inference.ensemble import ensemble as average

    predictor = average(runs, data, out, overwrite=overwrite)
    for note in predictor.card.notes:
        logger.info(f"note: {note}")
    logger.info(f"validation micro-F1 {predictor.card.validation['micro_f1']:.4f}")
    logger.info(f"run → {out}")
