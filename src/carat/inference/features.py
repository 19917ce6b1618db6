"""Reading and validation of feature arrays for prediction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carat.data.recipes.sources.arrays import load_arrays
from carat.runs.card import ModalityCard
from carat.utils.errors import DataError, did_you_mean

Sample = dict[str, NDArray[Any]]
"""Features (T, d) by modality."""


def read_features(file: str | os.PathLike[str]) -> dict[str, Sample]:
    """Read samples from an `.npz` file.

    Arrays (T, d) are named `modality`, or `id/modality` if there are several samples.

    Args:
        file: the `.npz` file.

    Returns:
        Samples by ID; the file name without extension is the ID of a single sample.

    Raises:
        DataError: the file cannot be read, or mixes both forms of names.
    """
    path = Path(file)
    loaded = load_arrays(path)
    if not isinstance(loaded, dict) or not loaded:
        raise DataError(f"{path}: expected an .npz with named arrays")
    if len({"/" in name for name in loaded}) > 1:
        raise DataError(f"{path}: array names must be all 'modality' or all 'id/modality'")
    samples: dict[str, Sample] = {}
    for name, array in loaded.items():
        id, _, modality = name.rpartition("/")
        samples.setdefault(id or path.stem, {})[modality] = array
    return samples


def check_sample(
    sample: Mapping[str, ArrayLike],
    name: str,
    cards: Mapping[str, ModalityCard],
    max_length: Mapping[str, int],
    *,
    truncation: bool,
    raw: bool,
) -> Sample:
    """Validate a sample and convert it to the arrays of a batch.

    Args:
        sample: (T, d) by modality, without absent modalities.
        name: name of the sample for error messages.
        cards: what the run expects, by modality.
        max_length: maximum number of time steps of the model, by modality.
        truncation: truncate longer sequences; if False, they are an error.
        raw: apply the transform of the run's recipe first.

    Returns:
        float32 features or int32 tokens (T, d) by modality.

    Raises:
        DataError: unknown modality, wrong shape or type, non-finite features, too long, or no modality is
            present.
    """
    arrays = {}
    for m, values in sample.items():
        if m not in cards:
            hint = did_you_mean(m, cards) or f"; the run knows: {', '.join(cards)}"
            raise DataError(f"{name}: unknown modality '{m}'{hint}")
        array = _check_array(np.asarray(values), f"{name}, {m}", cards[m], raw)
        if len(array) > max_length[m]:
            if not truncation:
                raise DataError(
                    f"{name}, {m}: {len(array)} steps, but max_length is {max_length[m]}; truncate the "
                    f"sequence"
                )
            array = array[: max_length[m]]
        arrays[m] = array
    if not any(len(array) for array in arrays.values()):
        raise DataError(f"{name}: no modality is present; at least one of {', '.join(cards)} is needed")
    return arrays


def select_modalities(
    samples: Mapping[str, Mapping[str, NDArray[Any]]], cards: Mapping[str, ModalityCard], raw: bool
) -> tuple[dict[str, Sample], list[str]]:
    """Drop the modalities that a run does not use, if every sample has at least one that it uses.

    Args:
        samples: features (T, d) by sample ID and modality.
        cards: what the run expects, by modality.
        raw: whether the transform of the run's recipe will be applied.

    Returns:
        The samples, and notes on dropped modalities and on a transform that `raw` would apply.
    """
    notes = []
    unused = {m for sample in samples.values() for m in sample} - cards.keys()
    if unused and all(sample.keys() & cards.keys() for sample in samples.values()):
        samples = {id: {m: x for m, x in sample.items() if m in cards} for id, sample in samples.items()}
        notes.append(f"the run does not use: {', '.join(sorted(unused))}")
    transformed = [m for m, card in cards.items() if card.transform and card.transform.changes_values]
    if transformed and not raw:
        notes.append(
            f"the recipe transformed {', '.join(transformed)}; if the file holds features as extracted, add "
            f"--raw"
        )
    return {id: dict(sample) for id, sample in samples.items()}, notes


def _check_array(array: NDArray[Any], where: str, card: ModalityCard, raw: bool) -> NDArray[Any]:
    transform, is_numeric = card.transform, array.dtype.kind in "fiu"
    if raw and transform and array.ndim == 2 and is_numeric:
        array = transform.apply(array, where)
    if array.ndim != 2 or array.shape[1] != card.width or not is_numeric:
        fits_raw = transform is not None and array.ndim == 2 and array.shape[1] == transform.width
        hint = "; are they raw features (raw=True, --raw)?" if fits_raw and not raw else ""
        raise DataError(
            f"{where}: expected numbers (T, {card.width}), found {array.dtype} {array.shape}{hint}"
        )
    if card.tokens is not None:
        if not card.tokens.is_valid(array):
            raise DataError(f"{where}: expected {card.tokens.expected}")
        return array.astype(np.int32)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{where}: the features contain inf or NaN")
    return array
