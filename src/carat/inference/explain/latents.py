"""t-SNE of label-specific features before, and of their latents after the contrast."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store
from carat.inference.explain.collect import Gathered
from carat.utils.plotting import COLORS, new_figure, save
from carat.utils.tables import Table

PERPLEXITY = 30


@dataclass(frozen=True)
class Points:
    """Features of present modalities; each (modality, label, polarity) has as many where it can."""

    place: NDArray[np.int64]
    """(Q, 3): sample among the kept ones, modality, label."""
    present: NDArray[np.bool_]
    """(Q,), whether the sample has the label."""
    spaces: dict[str, NDArray[np.float32]]
    """(Q, width) before and after the contrast."""


def choose_points(gathered: Gathered, number: int, seed: int) -> Points:
    """At most so many points, the classes (modality, label, polarity) as equal as they can be."""
    random = np.random.default_rng(seed)
    truth, modality_mask = gathered.truth[gathered.kept], gathered.modality_mask[gathered.kept]
    share = max(1, number // (2 * len(gathered.modalities) * len(gathered.labels)))
    chosen = []
    for m in range(len(gathered.modalities)):
        for label in range(len(gathered.labels)):
            for sign in (True, False):
                there = np.flatnonzero(modality_mask[:, m] & (truth[:, label] == sign))
                there = random.permutation(there)[:share]
                chosen += [(i, m, label) for i in there.tolist()]
    place = np.array(chosen, dtype=np.int64).reshape(-1, 3)
    index = tuple(place.T)
    spaces = {"before": gathered.features[index], "after": gathered.latents[index]}
    return Points(place, truth[place[:, 0], place[:, 2]], spaces)


def embed(points: Points, seed: int) -> dict[str, NDArray[np.float32]]:
    """t-SNE of each space: (Q, 2)."""
    from sklearn.manifold import TSNE

    perplexity = min(PERPLEXITY, (len(points.place) - 1) / 3)
    return {
        name: np.asarray(
            TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(space), dtype=np.float32
        )
        for name, space in points.spaces.items()
    }


def separation(points: Points) -> dict[str, float]:
    """Mean silhouette, −1 … 1, of the classes (modality, label, polarity) in each space, by cosine."""
    from sklearn.metrics import silhouette_score

    classes = points.place[:, 1] * 1_000_000 + points.place[:, 2] * 2 + points.present
    if not 1 < len(np.unique(classes)) < len(classes):
        return dict.fromkeys(points.spaces, float("nan"))
    return {
        name: float(silhouette_score(space, classes, metric="cosine"))
        for name, space in points.spaces.items()
    }


def draw_latents(gathered: Gathered, store: Store, out: Path, number: int, seed: int) -> list[Path]:
    """Write `latents.svg` and `latents.csv`; nothing where there are fewer than 20 points."""
    points = choose_points(gathered, number, seed)
    if len(points.place) < 20:
        return []
    flat, apart = embed(points, seed), separation(points)
    titles = {"before": "before: features u", "after": "after: latents z"}
    by: dict[str, tuple[Sequence[str], NDArray[Any]]] = {
        "modality": (gathered.modalities, points.place[:, 1]),
        "polarity of the label": (["label absent", "label present"], points.present.astype(int)),
        "label": (gathered.labels, points.place[:, 2]),
    }
    figure = new_figure(13, 8.6)
    figure.suptitle(
        f"t-SNE of {len(points.place)} label-specific features before and after contrast, {gathered.split}; "
        f"silhouette of modality × label × polarity {apart['before']:.2f} before, {apart['after']:.2f} after"
    )
    grid = figure.subplots(2, 3)
    for line, (space, title) in zip(grid, titles.items(), strict=True):
        for axes, (what, (names, codes)) in zip(line, by.items(), strict=True):
            for code, name in enumerate(names):
                x, y = flat[space][codes == code].T
                axes.scatter(
                    x, y, s=7, color=COLORS[code % len(COLORS)], label=name, linewidths=0, alpha=0.75
                )
            axes.set(title=f"{title}, by {what}", xticks=[], yticks=[])
            axes.title.set_fontsize(9)
            axes.legend(fontsize=7, markerscale=2, loc="best", framealpha=0.8)
    save(figure, out / "latents.svg")
    rows = [
        [
            store.ids[gathered.rows[gathered.kept[i]]],
            gathered.modalities[m],
            gathered.labels[label],
            int(points.present[q]),
            *flat["before"][q].tolist(),
            *flat["after"][q].tolist(),
        ]
        for q, (i, m, label) in enumerate(points.place.tolist())
    ]
    columns = ["id", "modality", "label", "present", "before_x", "before_y", "after_x", "after_y"]
    Table(columns, rows).to_csv(out / "latents.csv")
    return [out / "latents.svg", out / "latents.csv"]
