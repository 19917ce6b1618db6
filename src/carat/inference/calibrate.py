"""Calibration of a finished run on a store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from carat.data.store import Store, open_store
from carat.data.summary import check_measurable
from carat.evaluation.calibration.fitting import calibrate
from carat.evaluation.calibration.maps import Kind
from carat.evaluation.calibration.plots import draw_reliability
from carat.evaluation.calibration.reliability import CalibrationReport, compare_reliability
from carat.evaluation.conformal import RISKS, fit_bounds
from carat.inference.loading import load
from carat.inference.model_card import make_model_card
from carat.inference.predictor import Predictor
from carat.runs.calibration import RunCalibration
from carat.runs.card import read_run, write_card
from carat.runs.folder import CARD, RELIABILITY
from carat.utils.output_folder import check_file


@dataclass(frozen=True)
class CalibratedRun:
    """A run that was calibrated anew.

    Args:
        folder: folder of the run.
        calibration: what its card holds now.
        report: reliability before and after, where "after" is cross-validated: each score is mapped by maps
            of the same kind that were fitted on other groups.
        figure: reliability diagrams of these scores.
    """

    folder: Path
    calibration: RunCalibration
    report: CalibrationReport
    figure: Path


def calibrate_run(
    run: str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    split: str = "valid",
    *,
    kind: Kind | Literal["auto"] = "auto",
    device: str | None = None,
) -> CalibratedRun:
    """Learn how the scores of a finished run become probabilities and decisions, and write it to its card.

    Predicted labels do not change. Weights, thresholds and everything else in the run stay as they are.

    Args:
        run: folder of a run.
        store: store with the labels of the run.
        split: split that was not trained on; validation, or better one that did not choose epoch and
            thresholds.
        kind: map of scores, see `calibration.kind` of an experiment.
        device: PyTorch device, see `carat.load`.

    Returns:
        The calibration, and what it changes.

    Raises:
        RunError: there is no run, it is unfinished or corrupt, or another process is writing to it.
        DataError: the store does not fit the run, or has no such split, or no known label in it.

    Source: see `carat.evaluation.calibration.maps` and `carat.evaluation.conformal`.

    Example:
        carat.calibrate_run("demo-run", "demo-store").report.all.after.calibration_error
    """
    folder = Path(run)
    predictor, store = load(folder, device=device), open_store(store)
    check_file(folder / CARD, True)
    predictor.check_labels(store)
    check_measurable(store, split)
    rows, raw, _ = predictor.score(store, split, calibrated=False)
    labels, groups, names = store.targets(rows), store.groups[rows], predictor.labels
    found = calibrate(raw, labels, groups, names, kind)
    calibration = RunCalibration.of_split(
        store.manifest, split, groups, found.to_records(), RISKS, fit_bounds(raw, labels, groups, names)
    )
    kinds = {name: x.score_map.kind for name, x in found.labels.items()}
    report = compare_reliability(raw, found.held_out, labels, groups, kinds)
    draw_reliability(raw, found.held_out, labels, names, folder / RELIABILITY)
    write_card(folder, read_run(folder)[0].model_copy(update={"calibration": calibration}))
    make_model_card(folder)
    return CalibratedRun(folder, calibration, report, folder / RELIABILITY)


def draw_split(predictor: Predictor, store: Store, split: str, file: Path) -> None:
    """Draw reliability diagrams of a split, of raw scores and of those that the predictor returns."""
    rows, raw, _ = predictor.score(store, split, calibrated=False)
    draw_reliability(raw, predictor.scale(raw), store.targets(rows), predictor.labels, file)
