"""`carat calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from carat.cli.app import app
from carat.utils.logging import logger


@app.command
def calibrate(
    run: Path,
    /,
    *,
    data: Path,
    split: str = "valid",
    kind: Literal["auto", "none", "temperature", "platt", "isotonic", "beta"] = "auto",
) -> None:
    """Calibrate a finished run: learn on validation how scores become probabilities and decisions.

    Training does this at its end; runs of earlier versions and converted ones need it, and so does a run on
    other data. Predicted labels do not change. The table compares raw scores with cross-validated calibrated
    ones; diagrams are in reliability.svg of the run.

    **Examples**

        carat calibrate demo-run --data demo-store

        carat calibrate demo-run --data demo-store --split valid --kind platt

    Parameters
    ----------
    run
        Folder created by `carat train` or `carat convert`; its run.json is rewritten.
    data
        Folder of a store with the labels of the run.
    split
        Split that was not trained on. The promise of --risk is exact if it did not choose epoch and
        thresholds either.
    kind
        Map of the scores of each label: auto is the one with the smallest cross-validated log loss.
    """
    from carat.inference.calibrate import calibrate_run

    done = calibrate_run(run, data, split, kind=kind)
    done.report.table().show()
    for name, label in done.calibration.labels.items():
        if label.note:
            logger.warning(f"note: '{name}' has map {label.kind}: {label.note}")
    logger.info(f"calibration → {run / 'run.json'}")
    logger.info(f"reliability diagrams → {done.figure}")
