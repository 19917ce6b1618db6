"""Draw docs/figures/explained_prediction.svg from the run and the store that `make demo` writes.

    python docs/figures/explained_prediction.py [RUN STORE]

Left, the score of each label with its threshold, colored by the modality with the strongest evidence; right,
the attention of each label over the time steps of each modality.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Patch

import carat

COLORS = {"text": "#3b72b0", "audio": "#b5651d", "visual": "#3a8a4d"}


def typical(predictor: carat.Predictor, store: carat.Store) -> int:
    """Row of a test sample with all modalities and three labels, predicted correctly from several of them."""
    for row in store.indices("test"):
        sample = store[row]
        if len(sample.features) < len(COLORS) or sample.labels.sum() != 3:
            continue
        prediction = predictor.predict(sample.features)
        true = {name for name, present in zip(store.label_names, sample.labels, strict=True) if present}
        if set(prediction.labels) == true and len({prediction.attribution[name] for name in true}) > 1:
            return int(row)
    raise SystemExit("no such sample: train longer")


def attention(predictor: carat.Predictor, features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Attention (L, T) by modality."""
    inputs = {m: torch.from_numpy(np.array(x, dtype=np.float32))[None] for m, x in features.items()}
    masks = {m: torch.ones(1, len(x), dtype=torch.bool) for m, x in features.items()}
    with torch.inference_mode():
        return {m: x[0].numpy() for m, x in predictor.model.attention(inputs, masks).items()}


def draw(run: Path, data: Path, out: Path) -> None:
    """Write the figure."""
    predictor, store = carat.load(run, device="cpu"), carat.open_store(data)
    row = typical(predictor, store)
    sample = store[row]
    prediction = predictor.predict(sample.features)
    weights = attention(predictor, dict(sample.features))
    names = store.label_names
    true = [name for name, present in zip(names, sample.labels, strict=True) if present]

    mpl.rcParams.update({"font.size": 9, "svg.hashsalt": "carat", "font.family": "DejaVu Sans"})
    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1.9])
    axes = left.subplots()
    for i, name in enumerate(names):
        score, threshold = prediction.scores[name], predictor.thresholds[name]
        color = COLORS[prediction.attribution[name]]
        axes.barh(i, score, color=color, alpha=1 if score > threshold else 0.35)
        axes.plot([threshold] * 2, [i - 0.42, i + 0.42], color="#222", linewidth=1.5)
        axes.text(score + 0.02, i, f"{score:.2f}", va="center", fontsize=8)
    axes.set(yticks=range(len(names)), xlim=(0, 1.12), ylim=(len(names) - 0.5, -0.5), xlabel="score")
    axes.set_yticklabels([f"{name} ✓" if name in true else name for name in names])
    axes.set_title("scores (✓ true, | threshold)", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    handles = [Patch(color=color, label=m) for m, color in COLORS.items()]
    left.legend(
        handles=handles,
        title="modality with the strongest evidence",
        ncols=3,
        fontsize=8,
        title_fontsize=8,
        loc="outside lower center",
    )

    order = sorted(weights, key=list(COLORS).index)
    panels = right.subplots(len(order), 1)
    for axes, m in zip(panels, order, strict=True):
        axes.imshow(weights[m], aspect="auto", cmap="Greys", interpolation="nearest", vmin=0)
        axes.set(yticks=range(len(names)), xticks=range(4, weights[m].shape[1], 5))
        axes.set_xticklabels([str(i + 1) for i in range(4, weights[m].shape[1], 5)], fontsize=7)
        axes.set_yticklabels(names, fontsize=7)
        axes.set_title(f"{m}: attention of each label over time steps", fontsize=9, color=COLORS[m])
        for i, name in enumerate(names):
            if name in prediction.labels and prediction.attribution[name] == m:
                axes.get_yticklabels()[i].set(color=COLORS[m], fontweight="bold")
    figure.savefig(out, format="svg", metadata={"Date": None}, facecolor="white")
    print(f"sample {sample.id}: {out}, {out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    run, data = map(Path, sys.argv[1:3] or ("demo/run", "demo/store"))
    draw(run, data, Path(__file__).with_suffix(".svg"))
