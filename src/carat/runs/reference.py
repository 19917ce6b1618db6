"""The file of a run with the distribution of its training data, for warnings and drift reports."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.runs.card import RunCard
from carat.runs.folder import REFERENCE
from carat.utils.errors import RunError
from carat.utils.files import replace_file
from carat.utils.reading import check_regular

FIELDS = ("quantiles", "presence", "mean", "scale", "factor", "seen")
"""Arrays of each modality, see `carat.evaluation.drift.Reference`."""
QUANTILES = 101
"""Number of quantiles."""
OF_SCORES = ("scores/quantiles", "scores/predicted", "labels/rate")
"""Arrays of the labels: quantiles (101, L) of validation scores, rates (L,) of predictions and of labels."""


def write_reference(folder: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write `reference.safetensors` of a run."""
    from safetensors.numpy import save

    content = {name: np.ascontiguousarray(_narrow(x)) for name, x in arrays.items()}
    replace_file(folder / REFERENCE, save(content))


def _narrow(x: NDArray[Any]) -> NDArray[Any]:
    return x.astype(np.float32) if x.dtype == np.float64 and x.size > 1000 else x


def read_reference(folder: Path, card: RunCard) -> dict[str, NDArray[Any]] | None:
    """Read the arrays of a run; None if it has none.

    Raises:
        RunError: they cannot be read, or do not belong to the modalities and labels of the run.
    """
    if REFERENCE not in card.digests:
        return None
    from safetensors import SafetensorError
    from safetensors.numpy import load

    check_regular(folder / REFERENCE, RunError)
    try:
        arrays = load((folder / REFERENCE).read_bytes())
    except (SafetensorError, OSError) as error:
        raise RunError(f"{folder / REFERENCE}: corrupt") from error
    names = {f"{m}/{field}" for m in modalities_of(arrays) for field in FIELDS} | set(OF_SCORES)
    known = all(m in card.modalities for m in modalities_of(arrays))
    number = len(card.labels)
    fits = set(arrays) == names and known and _fits(arrays, card)
    if not fits or [arrays[x].shape for x in OF_SCORES] != [(QUANTILES, number), (number,), (number,)]:
        raise RunError(f"{folder / REFERENCE}: does not belong to this run")
    return arrays


def _fits(arrays: Mapping[str, NDArray[Any]], card: RunCard) -> bool:
    """Whether the arrays of modalities have possible shapes."""
    for m in modalities_of(arrays):
        quantiles, presence, mean, scale, factor, seen = (arrays[f"{m}/{field}"] for field in FIELDS)
        info = card.modalities[m]
        width = 0 if info.tokens else info.width
        vocabulary = info.tokens.vocabulary if info.tokens else 0
        if not (
            (quantiles.shape, presence.size, seen.shape) == ((QUANTILES,), 1, (vocabulary,))
            and mean.shape == scale.shape == (width,)
            and factor.shape in ((width, width), (0, 0))
        ):
            return False
    return True


def modalities_of(names: Iterable[str]) -> list[str]:
    """Modalities that have a reference."""
    return list(dict.fromkeys(x.split("/")[0] for x in names if x not in OF_SCORES))
