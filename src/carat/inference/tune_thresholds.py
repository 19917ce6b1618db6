"""New thresholds for a finished run, searched on a split of a store."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store, open_store
from carat.data.summary import check_measurable
from carat.evaluation.metrics import measure_f1
from carat.evaluation.thresholds import search_thresholds
from carat.inference.loading import load
from carat.inference.model_card import make_model_card
from carat.runs.card import read_run, write_card
from carat.runs.folder import CARD
from carat.utils.errors import DataError
from carat.utils.output_folder import check_file

ThresholdKind = Literal["global", "per-label", "interpolated"]


@dataclass(frozen=True)
class TunedThresholds:
    """Thresholds of a run that were searched anew.

    Args:
        folder: folder of the run.
        before, after: thresholds of raw scores by label.
        f1: `micro_f1` and `macro_f1` of the split, `before` and `after`; the latter are optimistic, since
            the thresholds were chosen on it.
    """

    folder: Path
    before: dict[str, float]
    after: dict[str, float]
    f1: dict[str, dict[str, float]]


def tune_thresholds(
    run: str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    split: str = "valid",
    *,
    kind: ThresholdKind | None = None,
    max_micro_f1_drop: float | None = None,
    balance_corpora: bool = False,
    device: str | None = None,
) -> TunedThresholds:
    """Search the thresholds of a finished run on a split, and write them to its card.

    For texts or recordings of another kind than those of training, a few hundred labeled samples suffice.
    Weights and calibration stay as they are.

    Args:
        run: folder of a run.
        store: store with the labels of the run.
        split: split that was not trained on, and that is not the one to report.
        kind: rule of the search, see `threshold.kind` of an experiment; by default that of training.
        max_micro_f1_drop: see `threshold.max_micro_f1_drop`; by default that of training.
        balance_corpora: let every corpus of the store count alike, however many samples it has.
        device: PyTorch device, see `carat.load`.

    Returns:
        The thresholds, and what they change.

    Raises:
        RunError: there is no run, it is unfinished or corrupt, or another process is writing to it.
        DataError: the store does not fit the run, has no such split, no known label in it, or a single corpus
            that is to be balanced.

    Example:
        carat.tune_thresholds("demo-run", "demo-store", kind="interpolated").after
    """
    folder = Path(run)
    predictor, store = load(folder, device=device), open_store(store)
    check_file(folder / CARD, True)
    predictor.check_labels(store)
    check_measurable(store, split)
    rows, scores, labels = predictor.score(store, split, calibrated=False)
    choice = predictor.experiment.threshold
    found = search_thresholds(
        scores,
        labels,
        kind or choice.kind,
        choice.max_micro_f1_drop if max_micro_f1_drop is None else max_micro_f1_drop,
        _weights(store, rows) if balance_corpora else None,
    )
    before = predictor.scale.raw_thresholds
    after = dict(zip(predictor.labels, found.tolist(), strict=True))
    f1 = {"before": measure_f1(scores, labels, before), "after": measure_f1(scores, labels, after)}
    card, _ = read_run(folder)
    manifest = store.manifest
    note = f"thresholds were tuned on {manifest.name}, {split} (fingerprint {manifest.fingerprint[:16]})"
    kept = [x for x in card.notes if not x.startswith("thresholds were tuned on ")]
    write_card(folder, card.model_copy(update={"thresholds": after, "notes": [*kept, note]}))
    make_model_card(folder)
    return TunedThresholds(folder, before, after, f1)


def _weights(store: Store, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Weights (N,) with which every corpus counts alike; their mean is 1.

    Raises:
        DataError: there is a single corpus.
    """
    names = np.full(len(rows), "") if store.corpora is None else store.corpora[rows]
    _, corpus, sizes = np.unique(names, return_inverse=True, return_counts=True)
    if len(sizes) < 2:
        raise DataError(f"{store.folder}: there is a single corpus, so there is nothing to balance")
    weights: NDArray[np.float64] = len(rows) / len(sizes) / sizes[corpus]
    return weights
