"""Collection of model outputs on a split for all figures, in one pass."""

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
class SplitOutputs:
    """Outputs of a model on the N scorable samples of a split, in the order of the store."""

    split: str
    labels: list[str]
    """Names, in the order of the L axis."""
    modalities: list[str]
    """Names, in the order of the M axis."""
    rows: NDArray[np.int64]
    """(N,) rows of the store."""
    truth: NDArray[np.bool_]
    """(N, L) true labels; False where unknown."""
    known: NDArray[np.bool_]
    """(N, L), whether the true label is known."""
    predicted: NDArray[np.bool_]
    """(N, L) predicted labels, with the thresholds chosen on validation."""
    modality_mask: NDArray[np.bool_]
    """(N, M), present = True."""
    attribution: NDArray[np.int64]
    """(N, L) indices of modalities."""
    weights: NDArray[np.float32]
    """(N, M, L) softmax of the logits of the scored level over the present modalities."""
    kept: NDArray[np.int64]
    """(K,) indices among the N samples, of those whose features and latents are kept."""
    features: NDArray[np.float32]
    """(K, M, L, D) label-specific features u, before the projection to the contrastive space."""
    latents: NDArray[np.float32]
    """(K, M, L, P) latents z in the contrastive space, with unit norm."""


@torch.inference_mode()
def collect_outputs(
    predictor: Predictor, store: Store, split: str, keep: int, seed: int
) -> SplitOutputs | None:
    """Run the model on a split.

    Args:
        predictor: predictor of the run.
        store: store that fits the run.
        split: split of the store.
        keep: number of randomly drawn samples whose features and latents are kept.
        seed: random seed of the draw.

    Returns:
        The outputs; None for models without label-specific features by modality, unlike CARAT.

    Raises:
        DataError: the store does not fit the run, or has no such split.
    """
    predictor.check_labels(store)
    batches = list(predictor.batches(store, split))
    num_samples = sum(len(batch.rows) for batch in batches)
    random = np.random.default_rng(seed)
    chosen = np.zeros(num_samples, dtype=bool)
    chosen[random.choice(num_samples, min(keep, num_samples), replace=False)] = True
    parts: dict[str, list[NDArray[Any]]] = {}
    start = 0
    for batch in batches:
        outputs: Any = predictor.model(batch.features, batch.masks)
        if not hasattr(outputs, "latents"):
            return None
        mask = torch.from_numpy(chosen[start : start + len(batch.rows)]).to(outputs.scores.device)
        start += len(batch.rows)
        logits = outputs.logits[:, -1].masked_fill(~outputs.modality_mask[..., None], float("-inf"))
        tensors = {
            "rows": batch.rows,
            "truth": batch.labels == 1,
            "known": ~batch.labels.isnan(),
            "scores": outputs.scores,
            "modality_mask": outputs.modality_mask,
            "attribution": outputs.attribution,
            "weights": logits.softmax(1),
            "features": outputs.features[mask, 0],
            "latents": torch.nn.functional.normalize(outputs.latents[mask, 0], dim=-1),
        }
        for name, value in tensors.items():
            parts.setdefault(name, []).append(value.cpu().numpy())
    arrays: dict[str, Any] = {name: np.concatenate(values) for name, values in parts.items()}
    thresholds = np.array(list(predictor.card.thresholds.values()))
    return SplitOutputs(
        split=split,
        labels=predictor.labels,
        modalities=list(predictor.widths),
        predicted=apply_thresholds(arrays.pop("scores"), thresholds),
        kept=np.flatnonzero(chosen),
        **arrays,
    )
