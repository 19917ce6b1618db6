"""The model card of a finished run, with metrics on a split."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from carat.data.store import Store, open_store
from carat.evaluation.summary import summarize_report
from carat.evaluation.thresholds import apply_thresholds
from carat.inference.loading import load
from carat.runs.card import read_run
from carat.runs.folder import CARD, ENVIRONMENT
from carat.runs.model_card import UNKNOWN, describe_model, read_evaluation, write_model_card
from carat.utils.errors import RunError
from carat.utils.output_folder import check_file, read_plan


def make_model_card(
    run: str | os.PathLike[str],
    store: Store | str | os.PathLike[str] | None = None,
    split: str = "test",
    *,
    license: str | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Write the model card of a run: `model_card.md` and `model_card.json` in its folder.

    Args:
        run: folder of a run.
        store: store to evaluate the run on; defaults to the metrics that the card has already.
        split: split of the store.
        license: license of the weights, by its name on the Hugging Face Hub; defaults to that of the card,
            which is unknown at first.
        device: PyTorch device, see `carat.load`.

    Returns:
        What the card says, as plain data.

    Raises:
        RunError: there is no run, it is unfinished or corrupt, or another process is writing to it.
        DataError: the store does not fit the run, or has no such split.

    Example:
        carat.make_model_card("demo-run", "demo-store", license="mit")["evaluation"]["metrics"]["micro_f1"]
    """
    folder = Path(run)
    card, experiment = read_run(folder)
    check_file(folder / CARD, True)
    evaluation: dict[str, Any] | None
    if store is not None:
        evaluation = _evaluate(folder, open_store(store), split, device)
        earlier = UNKNOWN
        with contextlib.suppress(RunError):  # a damaged card is replaced
            earlier = read_evaluation(folder)[1]
    else:
        evaluation, earlier = read_evaluation(folder)
    environment = read_plan(folder / ENVIRONMENT)
    name = folder.resolve().name
    model = describe_model(name, card, experiment, environment, evaluation, license or earlier)
    write_model_card(folder, model)
    return model


def _evaluate(folder: Path, store: Store, split: str, device: str | None) -> dict[str, Any]:
    predictor = load(folder, device=device)
    report = predictor.evaluate(store, split)
    rows, raw, labels = predictor.score(store, split, calibrated=False)
    predicted = apply_thresholds(raw, np.array(list(predictor.scale.raw_thresholds.values())))
    return summarize_report(report, store.manifest.name, predicted, labels, store.groups[rows])
