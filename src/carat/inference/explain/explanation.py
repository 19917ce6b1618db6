"""All pictures of a run in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carat.data.store import Store, open_store
from carat.inference.explain.attention import draw_attention, find_rows
from carat.inference.explain.collect import Gathered, gather
from carat.inference.explain.contributions import draw_co_occurrence, draw_contributions
from carat.inference.explain.latents import draw_latents
from carat.inference.explain.sensitivity import draw_sensitivity, read_sweep
from carat.inference.predictor import load
from carat.utils.errors import ConfigError
from carat.utils.output_folder import FolderKind, check_folder, claim

EXPLANATION = FolderKind(
    name="explanation",
    markers=(),
    patterns=tuple(
        f"{name}.{ending}"
        for name in ("latents", "contributions", "co_occurrence", "sensitivity", "attention_*")
        for ending in ("svg", "csv")
    ),
    error=ConfigError,
)
"""A folder of pictures and their numbers."""
SAMPLES = 3
"""Samples whose attention is drawn when none are named."""
KEPT = 2000
"""Samples whose features may become points."""


def explain(
    run: str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    split: str = "test",
    samples: Sequence[str] | None = None,
    points: int = 1500,
    sweep: str | os.PathLike[str] | None = None,
    seed: int = 0,
    overwrite: bool = False,
) -> list[Path]:
    """Draw what a run does on a split: pictures as SVG, their numbers as CSV.

    Args:
        run: folder of the run, or a `TrainedRun` or `Predictor`.
        store: a store with the run's labels, or its folder.
        out: folder to make.
        split: which split.
        samples: ids whose attention is drawn; by default three, those that the run gets right and that have
            several labels first.
        points: how many points t-SNE shows.
        sweep: folder of runs on the run's data whose settings differ, for curves of sensitivity.
        seed: of drawing and t-SNE.
        overwrite: replace another explanation.

    Returns:
        The files that were written.

    Raises:
        ConfigError: the folder is taken, or the run's method has nothing to draw.
        DataError: the store does not fit the run, or has no such split or sample.
        RunError: no run, no sweep, or another process works in the folder.

    Source: t-SNE by van der Maaten and Hinton, JMLR 9 (2008).

    Example:
        carat.explain("demo-run", "demo-store", "pictures", points=50)
    """
    folder = Path(out)
    check_folder(EXPLANATION, folder, overwrite=overwrite)
    opened, predictor = open_store(store), load(run)
    curves = read_sweep(Path(sweep), predictor.card.fingerprint) if sweep is not None else None
    rows = find_rows(opened, samples) if samples else None
    gathered = gather(predictor, opened, split, KEPT, seed)
    if gathered is None and curves is None:
        name = predictor.experiment.method.name
        raise ConfigError(f"{folder}: {name} has no label features by modality, nothing to draw but --sweep")
    files: list[Path] = []
    with claim(EXPLANATION, folder, overwrite=overwrite):
        if gathered is not None:
            files += draw_latents(gathered, opened, folder, points, seed)
            files += draw_contributions(gathered, folder)
            files += draw_co_occurrence(gathered, folder)
            for row in typical(gathered) if rows is None else rows:
                files += draw_attention(predictor, opened, row, folder)
        if curves is not None:
            files += draw_sensitivity(curves, folder)
    return files


def typical(gathered: Gathered) -> list[int]:
    """Rows of samples worth a look: labels exactly right and many, modalities as many as there are."""
    right = (gathered.predicted == gathered.truth).all(1)
    worth = gathered.truth.sum(1) + 100 * right + 10 * gathered.modality_mask.sum(1)
    best = np.argsort(-worth, kind="stable")[:SAMPLES]
    return [int(row) for row in gathered.rows[best]]
