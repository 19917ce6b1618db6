"""All pictures of a run in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carat.data.store import open_store
from carat.errors import ConfigError
from carat.explain.attention import draw_attention, find_rows
from carat.explain.contributions import draw_co_occurrence, draw_contributions
from carat.explain.gather import Gathered, gather
from carat.explain.latents import draw_latents
from carat.explain.sensitivity import draw_sensitivity
from carat.predictor import load

SAMPLES = 3
"""Samples whose attention is drawn when none are named."""
KEPT = 2000
"""Samples whose features may become points."""


def explain(
    run: str | os.PathLike[str],
    data: str | os.PathLike[str],
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
        run: folder of the run.
        data: folder of a store with the run's labels.
        out: folder to make.
        split: which split.
        samples: ids whose attention is drawn; by default three that the run gets right, with several labels.
        points: how many points t-SNE shows.
        sweep: folder of runs on the run's data whose settings differ, for curves of sensitivity.
        seed: of drawing and t-SNE.
        overwrite: write into a folder that holds something.

    Returns:
        The files that were written.

    Raises:
        ConfigError: the folder is taken.
        DataError: the store does not fit the run, or has no such split or sample.
        RunError: no run, or no sweep.
    """
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())) and not overwrite:
        raise ConfigError(f"{folder}: exists already; --overwrite writes into it")
    store, predictor = open_store(data), load(run)
    rows = find_rows(store, samples) if samples else None
    gathered = gather(predictor, store, split, KEPT, seed)
    folder.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    if gathered is not None:
        files += draw_latents(gathered, store, folder, points, seed)
        files += draw_contributions(gathered, folder)
        files += draw_co_occurrence(gathered, folder)
        for row in typical(gathered) if rows is None else rows:
            files += draw_attention(predictor, store, row, folder)
    if sweep is not None:
        files += draw_sensitivity(Path(sweep), predictor.card.fingerprint, folder)
    return files


def typical(gathered: Gathered) -> list[int]:
    """Rows of samples worth a look: labels exactly right and many, modalities as many as there are."""
    right = (gathered.predicted == gathered.truth).all(1)
    worth = gathered.truth.sum(1) + 100 * right + 10 * gathered.presence.sum(1)
    best = np.argsort(-worth, kind="stable")[:SAMPLES]
    return [int(row) for row in gathered.rows[best]]
