"""Label attention of single samples, over the words of a text and the time steps of other modalities."""

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
from carat.utils.errors import DataError, did_you_mean, shorten
from carat.utils.plotting import brief, heat_map, new_figure, save
from carat.utils.tables import Table

MAX_SLUG = 80
"""Maximum length of a sample ID in the name of a file."""
MAX_STEPS = 60
"""Maximum number of time steps in a figure."""


def find_rows(store: Store, ids: Sequence[str]) -> list[int]:
    """Find the rows of samples.

    Args:
        store: store with the samples.
        ids: sample IDs.

    Raises:
        DataError: the store has no such sample.
    """
    row_by_id = {id: row for row, id in enumerate(store.ids.tolist())}
    for id in ids:
        if id not in row_by_id:
            raise DataError(f"{store.folder}: no sample '{id}'{did_you_mean(id, row_by_id)}")
    return [row_by_id[id] for id in ids]


def step_words(store: Store, row: int, modality: str, steps: int) -> list[str] | None:
    """Words of the transcript for each step of word vectors; None for other features."""
    words = tokenize(store.transcript(row))
    source = store.manifest.modalities[modality].source
    return words[:steps] if source.startswith("glove") and len(words) >= steps else None


def _step_tokens(predictor: Predictor, features: NDArray[Any], modality: str, steps: int) -> list[str]:
    """Tokens of the text without context if attention covers them; empty for other features."""
    own = drop_context(features)
    if predictor.card.modalities[modality].tokens is None or steps not in (len(own), len(features)):
        return []
    return predictor.reader.convert_ids_to_tokens(own[:, 0])


def draw_attention(predictor: Predictor, store: Store, row: int, out: Path) -> list[Path]:
    """Write `attention_<id>.svg` and `.csv` of a sample, unless all its modalities have a single step."""
    sample = store[row]
    max_length = predictor.model.max_length
    features = {
        m: np.asarray(x if x.dtype.kind == "i" else x.astype(np.float32))[: max_length[m]]
        for m, x in sample.features.items()
        if m in predictor.widths
    }
    batch = collate([features], predictor.widths).to(predictor.device)
    with torch.inference_mode():
        by_modality = predictor.model.attention(batch.features, batch.masks)
    weights: dict[str, NDArray[np.float32]] = {
        m: x[0].cpu().numpy() for m, x in by_modality.items() if m in features
    }  # (L, T_m)
    tokens = {m: _step_tokens(predictor, features[m], m, x.shape[1]) for m, x in weights.items()}
    weights = {m: x[:, : len(tokens[m])] if tokens[m] else x for m, x in weights.items()}
    words = {
        m: tokens[m] or (step_words(store, row, m, x.shape[1]) if x.shape[1] == len(features[m]) else None)
        for m, x in weights.items()
    }
    shown = {m: x[:, :MAX_STEPS] for m, x in weights.items() if x.shape[1] > 1}
    if not shown:
        return []
    prediction = predictor.predict_batch([features], names=[sample.id])[0]
    slug = re.sub(r"[^\w.-]+", "_", sample.id)[:MAX_SLUG]
    true = [name for name, present in zip(predictor.labels, sample.labels, strict=True) if present]
    unknown = [name for name, known in zip(predictor.labels, sample.known, strict=True) if not known]
    truth = (", ".join(true) or "none") + (f" (unknown: {', '.join(unknown)})" if unknown else "")
    title = [
        f"{brief(sample.id)}: label attention",
        shorten(f"true: {truth}; predicted: {', '.join(prediction.labels) or 'none'}"),
    ]
    if sample.transcript:
        title.append(textwrap.fill(f"“{textwrap.shorten(sample.transcript, 240, placeholder=' …')}”", 110))
    num_columns = max(x.shape[1] for x in shown.values())
    height = 1.2 + sum(1.0 + 0.25 * len(predictor.labels) for _ in shown)
    figure = new_figure(max(7.0, 2.5 + 0.3 * num_columns), height)
    figure.suptitle("\n".join(title), fontsize=9)
    for axes, (m, x) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown.items(), strict=True):
        columns = (words[m] or [str(step + 1) for step in range(x.shape[1])])[:MAX_STEPS]
        image = heat_map(axes, x, predictor.labels, columns, highest=None, number_format=None)
        axes.set_title(
            m + (f", first {MAX_STEPS} steps" if weights[m].shape[1] > MAX_STEPS else ""), fontsize=9
        )
        axes.tick_params(labelsize=8)
        axes.set_xlabel("word" if words[m] else "time step", fontsize=8)
        figure.colorbar(image, ax=axes, label="attention", fraction=0.03, pad=0.01)
    files = [out / f"attention_{slug}.svg", out / f"attention_{slug}.csv"]
    save(figure, files[0])
    rows = [
        [m, step + 1, word, *x[:, step].tolist()]
        for m, x in weights.items()
        for step, word in enumerate(words[m] or [""] * x.shape[1])
    ]
    Table(["modality", "step", "word", *predictor.labels], rows).to_csv(files[1])
    return files
