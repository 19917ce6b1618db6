"""t-SNE of label-specific features, and of their latents in the contrastive space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store
from carat.inference.explain.collect import SplitOutputs
from carat.utils.plotting import COLORS, legend_name, new_figure, save
from carat.utils.tables import Table

PERPLEXITY = 30


@dataclass(frozen=True)
class Points:
    """Q points to plot, balanced over the classes (modality, label, polarity)."""

    index: NDArray[np.int64]
    """(Q, 3) indices of the kept sample, modality and label."""
    present: NDArray[np.bool_]
    """(Q,) whether the sample has the label."""
    spaces: dict[str, NDArray[np.float32]]
    """(Q, width) vectors, `before` and `after` the projection to the contrastive space."""


def sample_points(outputs: SplitOutputs, max_points: int, seed: int) -> Points:
    """Sample points of present modalities and known labels, balanced over (modality, label, polarity)."""
    random = np.random.default_rng(seed)
    truth, known = outputs.truth[outputs.kept], outputs.known[outputs.kept]
    modality_mask = outputs.modality_mask[outputs.kept]
    per_class = max(1, max_points // (2 * len(outputs.modalities) * len(outputs.labels)))
    chosen = []
    for m in range(len(outputs.modalities)):
        for label in range(len(outputs.labels)):
            for polarity in (True, False):
                member = known[:, label] & (truth[:, label] == polarity)
                candidates = np.flatnonzero(modality_mask[:, m] & member)
                drawn = random.permutation(candidates)[:per_class]
                chosen += [(i, m, label) for i in drawn.tolist()]
    index = np.array(chosen, dtype=np.int64).reshape(-1, 3)
    columns = tuple(index.T)
    spaces = {"before": outputs.features[columns], "after": outputs.latents[columns]}
    return Points(index, truth[index[:, 0], index[:, 2]], spaces)


def embed(points: Points, seed: int) -> dict[str, NDArray[np.float32]]:
    """Compute the t-SNE embedding (Q, 2) of each space."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(points.index) - 1) / 3)
    return {
        name: np.asarray(
            TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(space), dtype=np.float32
        )
        for name, space in points.spaces.items()
    }


def silhouettes(points: Points) -> dict[str, float]:
    """Compute the mean silhouette of the classes (modality, label, polarity) in each space.

    Returns:
        Cosine silhouette in [−1, 1] by space; NaN if there is a single class, or no class with two points.
    """
    from sklearn.metrics import silhouette_score

    classes = points.index[:, 1] * 1_000_000 + points.index[:, 2] * 2 + points.present
    if not 1 < len(np.unique(classes)) < len(classes):
        return dict.fromkeys(points.spaces, float("nan"))
    return {
        name: float(silhouette_score(space, classes, metric="cosine"))
        for name, space in points.spaces.items()
    }


def draw_latents(outputs: SplitOutputs, store: Store, out: Path, max_points: int, seed: int) -> list[Path]:
    """Write `latents.svg` and `latents.csv`, unless there are fewer than 20 points."""
    points = sample_points(outputs, max_points, seed)
    if len(points.index) < 20:
        return []
    embedded, silhouette = embed(points, seed), silhouettes(points)
    titles = {"before": "before: features u", "after": "after: latents z"}
    colorings: dict[str, tuple[Sequence[str], NDArray[Any]]] = {
        "modality": (outputs.modalities, points.index[:, 1]),
        "polarity of the label": (["label absent", "label present"], points.present.astype(int)),
        "label": (outputs.labels, points.index[:, 2]),
    }
    figure = new_figure(13, 8.6)
    figure.suptitle(
        f"t-SNE of {len(points.index)} label-specific features before and after the projection to the "
        f"contrastive space, {outputs.split}; silhouette of modality × label × polarity "
        f"{silhouette['before']:.2f} before, {silhouette['after']:.2f} after"
    )
    grid = figure.subplots(2, 3)
    for row, (space, title) in zip(grid, titles.items(), strict=True):
        for axes, (coloring, (names, codes)) in zip(row, colorings.items(), strict=True):
            for code, name in enumerate(names):
                x, y = embedded[space][codes == code].T
                axes.scatter(
                    x,
                    y,
                    s=7,
                    color=COLORS[code % len(COLORS)],
                    label=legend_name(name),
                    linewidths=0,
                    alpha=0.75,
                )
            axes.set(title=f"{title}, by {coloring}", xticks=[], yticks=[])
            axes.title.set_fontsize(9)
            axes.legend(fontsize=7, markerscale=2, loc="best", framealpha=0.8)
    save(figure, out / "latents.svg")
    rows = [
        [
            store.ids[outputs.rows[outputs.kept[i]]],
            outputs.modalities[m],
            outputs.labels[label],
            int(points.present[q]),
            *embedded["before"][q].tolist(),
            *embedded["after"][q].tolist(),
        ]
        for q, (i, m, label) in enumerate(points.index.tolist())
    ]
    columns = ["id", "modality", "label", "present", "before_x", "before_y", "after_x", "after_y"]
    Table(columns, rows).to_csv(out / "latents.csv")
    return [out / "latents.svg", out / "latents.csv"]
