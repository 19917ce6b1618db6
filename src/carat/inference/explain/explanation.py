"""Explanation of a run: all figures in one call."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from carat.data.store import Store, open_store
from carat.inference.explain.attention import draw_attention, find_rows
from carat.inference.explain.collect import SplitOutputs, collect_outputs
from carat.inference.explain.contributions import draw_co_occurrence, draw_contributions
from carat.inference.explain.latents import draw_latents
from carat.inference.explain.sensitivity import draw_sensitivity, read_sweep
from carat.inference.loading import load
from carat.utils.errors import ConfigError
from carat.utils.output_folder import FolderKind, check_folder, replacing

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
"""A folder of figures and their data."""
SAMPLES = 3
"""Default number of samples whose attention is drawn."""
KEPT = 2000
"""Maximum number of samples from which t-SNE points are drawn."""


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
    """Explain a run on a split in figures (SVG), each with its data (CSV).

    Draws t-SNE of features and latents, contributions of modalities, co-occurrence of labels, label
    attention of single samples, and the sensitivity to settings if a sweep is given.

    Args:
        run: folder of the run, or a `TrainedRun` or `Predictor`.
        store: store with the labels of the run, or its folder.
        out: folder to create.
        split: split of the store.
        samples: IDs of samples whose attention is drawn; defaults to three, preferably predicted exactly and
            with several labels.
        points: maximum number of t-SNE points.
        sweep: folder of runs on the same data with different settings, for sensitivity curves.
        seed: random seed of sampling and t-SNE.
        overwrite: replace an existing explanation.

    Returns:
        The files written.

    Raises:
        ConfigError: the folder holds something else, or there is nothing to draw for the method.
        DataError: the store does not fit the run, or has no such split or sample.
        RunError: there is no run or no sweep, or another process is writing to the folder.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 9 (2008).

    Example:
        carat.explain("demo-run", "demo-store", "pictures", points=50)
    """
    folder = Path(out)
    check_folder(EXPLANATION, folder, overwrite=overwrite)
    opened, predictor = open_store(store), load(run)
    curves = read_sweep(Path(sweep), predictor.card.fingerprint) if sweep is not None else None
    rows = find_rows(opened, samples) if samples else None
    outputs = collect_outputs(predictor, opened, split, KEPT, seed)
    if outputs is None and curves is None:
        name = predictor.experiment.method.name
        raise ConfigError(
            f"{folder}: {name} has no label-specific features by modality, so only --sweep can be drawn"
        )
    files: list[Path] = []
    with replacing(EXPLANATION, folder, overwrite=overwrite) as new:
        if outputs is not None:
            files += draw_latents(outputs, opened, new, points, seed)
            files += draw_contributions(outputs, new)
            files += draw_co_occurrence(outputs, new)
            for row in select_samples(outputs) if rows is None else rows:
                files += draw_attention(predictor, opened, row, new)
        if curves is not None:
            files += draw_sensitivity(curves, new)
    return [folder / file.relative_to(new) for file in files]


def select_samples(outputs: SplitOutputs) -> list[int]:
    """Select rows of samples whose known labels are predicted, then many modalities, then many labels."""
    correct = (outputs.predicted == outputs.truth) | ~outputs.known
    exact = correct.all(1) & outputs.known.any(1)
    priority = outputs.truth.sum(1) + 100 * exact + 10 * outputs.modality_mask.sum(1)
    best = np.argsort(-priority, kind="stable")[:SAMPLES]
    return [int(row) for row in outputs.rows[best]]
