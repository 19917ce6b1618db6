"""Evaluation of a run on a store."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from carat.data.store import Store, open_store
from carat.inference.loading import load
from carat.inference.predictor import Precision, Predictor

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from carat.evaluation.report import Report


def evaluate(
    run: Predictor | str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    split: str = "test",
    *,
    device: str | None = None,
    precision: Precision = "float32",
) -> Report:
    """Evaluate a run on a split, with the thresholds that were chosen on validation during training.

    Args:
        run: folder of a run, a `TrainedRun`, or a `Predictor`, whose device and precision are kept.
        store: store with the labels of the run, or its folder.
        split: split of the store.
        device: PyTorch device, e.g. "cpu" or "cuda:1"; defaults to a GPU if one is available.
        precision: "float32" or "bf16", see `carat.load`.

    Returns:
        Metrics with 95 % intervals, bootstrapped by group (video or dialogue).

    Raises:
        RunError: there is no run, or it is unfinished or corrupt.
        DataError: the store is corrupt, does not fit the run, or has no such split.

    Example:
        report = carat.evaluate("demo-run", "demo-store", split="valid")
        report.metrics.micro_f1, report.intervals["micro_f1"]
    """
    predictor = run if isinstance(run, Predictor) else load(run, device=device, precision=precision)
    return predictor.evaluate(open_store(store), split)
