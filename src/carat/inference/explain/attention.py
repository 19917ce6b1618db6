"""Where each label looks in single samples: the words of a text, the steps of the other modalities."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carat.data.batch import collate
from carat.data.recipes.sources.glove import tokenize
from carat.data.store import Store
from carat.data.tokenizer import drop_context
from carat.inference.predictor import Predictor
from carat.utils.errors import DataError, did_you_mean
from carat.utils.plotting import heat_map, new_figure, save
from carat.utils.tables import Table

WIDEST = 60
"""Time steps that a picture shows."""


def find_rows(store: Store, ids: Sequence[str]) -> list[int]:
    """Rows of samples.

    Raises:
        DataError: the store has no such sample.
    """
    known = {id: row for row, id in enumerate(store.ids.tolist())}
    for id in ids:
        if id not in known:
            raise DataError(f"{store.folder}: no sample '{id}'{did_you_mean(id, known)}")
    return [known[id] for id in ids]


def spoken(store: Store, row: int, modality: str, steps: int) -> list[str] | None:
    """The words that the steps stand for, where they are those of the transcript."""
    words = tokenize(store.transcript(row))
    source = store.manifest.modalities[modality].source
    return words[:steps] if source.startswith("glove") and len(words) >= steps else None


def _spelt(predictor: Predictor, features: NDArray[Any], modality: str, steps: int) -> list[str]:
    """The text's own tokens where the steps that were attended to are those; nothing otherwise."""
    own = drop_context(features)
    if predictor.card.modalities[modality].tokens is None or steps not in (len(own), len(features)):
        return []
    return predictor.reader.spell(own[:, 0])


def draw_attention(predictor: Predictor, store: Store, row: int, out: Path) -> list[Path]:
    """Write `attention_<id>.svg` and `.csv` of one sample; nothing if no modality of it has several steps."""
    sample = store[row]
    longest = predictor.model.max_length
    features = {
        m: np.asarray(x if x.dtype.kind == "i" else x.astype(np.float32))[: longest[m]]
        for m, x in sample.features.items()
        if m in predictor.widths
    }
    batch = collate([features], predictor.widths).to(predictor.device)
    with torch.inference_mode():
        weights = predictor.model.attention(batch.features, batch.masks)
    found: dict[str, NDArray[np.float32]] = {
        m: x[0].cpu().numpy() for m, x in weights.items() if m in features
    }
    spelt = {m: _spelt(predictor, features[m], m, x.shape[1]) for m, x in found.items()}
    found = {m: x[:, : len(spelt[m])] if spelt[m] else x for m, x in found.items()}
    words = {
        m: spelt[m] or (spoken(store, row, m, x.shape[1]) if x.shape[1] == len(features[m]) else None)
        for m, x in found.items()
    }
    shown = {m: x[:, :WIDEST] for m, x in found.items() if x.shape[1] > 1}
    if not shown:
        return []
    prediction = predictor.predict_batch([features], names=[sample.id])[0]
    slug = re.sub(r"[^\w.-]+", "_", sample.id)
    true = [name for name, there in zip(predictor.labels, sample.labels, strict=True) if there]
    title = [
        f"{sample.id}: where each label looks",
        f"true: {', '.join(true) or 'none'}; predicted: {', '.join(prediction.labels) or 'none'}",
    ]
    if sample.transcript:
        title.append(textwrap.fill(f"“{textwrap.shorten(sample.transcript, 240, placeholder=' …')}”", 110))
    widest = max(x.shape[1] for x in shown.values())
    height = 1.2 + sum(1.0 + 0.25 * len(predictor.labels) for _ in shown)
    figure = new_figure(max(7.0, 2.5 + 0.3 * widest), height)
    figure.suptitle("\n".join(title), fontsize=9)
    for axes, (m, x) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        columns = (words[m] or [str(step + 1) for step in range(x.shape[1])])[:WIDEST]
        image = heat_map(axes, x, predictor.labels, columns, highest=None, number_format=None)
        axes.set_title(m + (f", first {WIDEST} steps" if found[m].shape[1] > WIDEST else ""), fontsize=9)
        axes.tick_params(labelsize=8)
        axes.set_xlabel("word" if words[m] else "time step", fontsize=8)
        figure.colorbar(image, ax=axes, label="attention", fraction=0.03, pad=0.01)
    files = [out / f"attention_{slug}.svg", out / f"attention_{slug}.csv"]
    save(figure, files[0])
    rows = [
        [m, step + 1, word, *x[:, step].tolist()]
        for m, x in found.items()
        for step, word in enumerate(words[m] or [""] * x.shape[1])
    ]
    Table(["modality", "step", "word", *predictor.labels], rows).to_csv(files[1])
    return files
