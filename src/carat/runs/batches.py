"""Batches of a store as the model of a run reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from carat.config.experiment import Experiment
from carat.data.batch import Batch
from carat.data.loader import check_lengths, make_loader
from carat.data.store import Store
from carat.models.base import Model
from carat.runs.card import RunCard
from carat.utils.progress import track


def load_batches(
    model: Model,
    card: RunCard,
    experiment: Experiment,
    store: Store,
    rows: NDArray[np.int64],
    title: str,
) -> Iterator[Batch]:
    """Load rows of a store in batches, with progress; modalities that the store lacks are masked.

    Args:
        model: model of the run.
        card: its card.
        experiment: its experiment.
        store: store that fits it.
        rows: (n,) rows with at least one of its modalities.
        title: title of the progress.

    Yields:
        Batches on the CPU with all modalities of the run.

    Raises:
        DataError: a sequence is longer than the model accepts, and the run does not truncate.
    """
    modalities = [m for m in card.modalities if m in store.modalities]
    if not experiment.data.truncation:
        check_lengths(store, rows, modalities, model.max_length)
    loader = make_loader(
        store,
        rows,
        modalities,
        batch_size=experiment.data.batch_size,
        max_length=model.max_length,
        pad_to={m: info.pad_to for m, info in card.modalities.items()},
    )
    for batch in track(loader, title, total=len(loader)):
        size, widths = len(batch.rows), {m: info.width for m, info in card.modalities.items()}
        features = {m: batch.features.get(m, torch.zeros(size, 1, d)) for m, d in widths.items()}
        masks = {m: batch.masks.get(m, torch.zeros(size, 1, dtype=torch.bool)) for m in widths}
        yield Batch(features, masks, batch.labels, batch.rows)


@torch.inference_mode()
def score_batches(
    model: Model, batches: Iterable[Batch], labels: int, accelerator: str = "cpu"
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Score batches with a model, which stays on the CPU in evaluation mode.

    Args:
        model: model to score with.
        batches: batches with all its modalities.
        labels: L.
        accelerator: "cpu" or "gpu".

    Returns:
        Rows of the store (N,) and scores (N, L).
    """
    device = "cuda" if accelerator == "gpu" else "cpu"
    model.eval().to(device)
    rows, scores = [np.zeros(0, np.int64)], [np.zeros((0, labels), np.float32)]
    for batch in batches:
        moved = batch.to(device)
        rows.append(batch.rows.numpy())
        scores.append(model.score(moved.features, moved.masks).scores.float().cpu().numpy())
    model.to("cpu")
    return np.concatenate(rows), np.concatenate(scores)
