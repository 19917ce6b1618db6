"""What the pictures need of a run on a split, collected in one pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from carat.data.store import Store
from carat.evaluation.thresholds import apply_thresholds
from carat.inference.predictor import Predictor


@dataclass(frozen=True)
class Gathered:
    """N samples of a split that can be scored, in the store's order."""

    split: str
    labels: list[str]
    """Names, in the order of the L axis."""
    modalities: list[str]
    """Names, in the order of the M axis."""
    rows: NDArray[np.int64]
    """(N,) of the store."""
    truth: NDArray[np.bool_]
    """(N, L)."""
    predicted: NDArray[np.bool_]
    """(N, L), with the thresholds found on validation."""
    modality_mask: NDArray[np.bool_]
    """(N, M)."""
    attribution: NDArray[np.int64]
    """(N, L)."""
    weights: NDArray[np.float32]
    """(N, M, L): softmax over the present modalities of the scored level's logits."""
    kept: NDArray[np.int64]
    """(K,) places among the N samples, of which features and latents are kept."""
    features: NDArray[np.float32]
    """(K, M, L, D): original label-specific features u, before the contrast's space."""
    latents: NDArray[np.float32]
    """(K, M, L, P): their latents z, of unit length, which the contrast shapes."""


@torch.inference_mode()
def gather(predictor: Predictor, store: Store, split: str, keep: int, seed: int) -> Gathered | None:
    """Run the method over a split.

    Args:
        predictor: of the run.
        store: data that fits the run.
        split: which split.
        keep: of how many samples, drawn at random, to keep features and latents.
        seed: of the drawing.

    Returns:
        None if the method has no latents and logits by modality, as CARAT has.

    Raises:
        DataError: the store does not fit the run, or has no such split.
    """
    predictor.check_labels(store)
    batches = list(predictor.batches(store, split))
    number = sum(len(batch.rows) for batch in batches)
    random = np.random.default_rng(seed)
    chosen = np.zeros(number, dtype=bool)
    chosen[random.choice(number, min(keep, number), replace=False)] = True
    parts: dict[str, list[NDArray[Any]]] = {}
    start = 0
    for batch in batches:
        outputs: Any = predictor.model(batch.features, batch.masks)
        if not hasattr(outputs, "latents"):
            return None
        mask = torch.from_numpy(chosen[start : start + len(batch.rows)]).to(outputs.scores.device)
        start += len(batch.rows)
        logits = outputs.logits[:, -1].masked_fill(~outputs.modality_mask[..., None], float("-inf"))
        found = {
            "rows": batch.rows,
            "truth": batch.labels.bool(),
            "scores": outputs.scores,
            "modality_mask": outputs.modality_mask,
            "attribution": outputs.attribution,
            "weights": logits.softmax(1),
            "features": outputs.features[mask, 0],
            "latents": torch.nn.functional.normalize(outputs.latents[mask, 0], dim=-1),
        }
        for name, value in found.items():
            parts.setdefault(name, []).append(value.cpu().numpy())
    whole: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
    thresholds = np.array(list(predictor.card.thresholds.values()))
    return Gathered(
        split=split,
        labels=predictor.labels,
        modalities=list(predictor.widths),
        predicted=apply_thresholds(whole.pop("scores"), thresholds),
        kept=np.flatnonzero(chosen),
        **whole,
    )
