"""Samples of a user's own: read from a file, and compared with what a run expects."""

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
"""(T, d) by modality."""


def read_features(file: str | os.PathLike[str]) -> dict[str, Sample]:
    """Samples by id from an `.npz`: arrays named `modality` (one sample) or `id/modality` (several).

    Raises:
        DataError: the file cannot be read or mixes both forms.
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
    longest: Mapping[str, int],
    *,
    truncation: bool,
    raw: bool,
) -> Sample:
    """A sample as a batch takes it.

    Args:
        sample: (T, d) by modality; absent ones left out.
        name: what errors call it.
        cards: what the run expects, by modality.
        longest: time steps that its method can read, by modality.
        truncation: cut longer sequences; otherwise they are an error.
        raw: clean features as the recipe of the run's store did.

    Raises:
        DataError: names the modality, what was found and what was expected.
    """
    arrays = {}
    for m, given in sample.items():
        if m not in cards:
            hint = did_you_mean(m, cards) or f"; the run knows: {', '.join(cards)}"
            raise DataError(f"{name}: unknown modality '{m}'{hint}")
        array = _check_numbers(np.asarray(given), f"{name}, {m}", cards[m], raw)
        if len(array) > longest[m]:
            if not truncation:
                raise DataError(f"{name}, {m}: {len(array)} steps, but max_length is {longest[m]}; cut it")
            array = array[: longest[m]]
        arrays[m] = array
    if not any(len(array) for array in arrays.values()):
        raise DataError(f"{name}: no modality is present; at least one of {', '.join(cards)} is needed")
    return arrays


def _check_numbers(array: NDArray[Any], what: str, card: ModalityCard, raw: bool) -> NDArray[Any]:
    transform, numbers = card.transform, array.dtype.kind in "fiu"
    if raw and transform and array.ndim == 2 and numbers:
        array = transform.apply(array, what)
    if array.ndim != 2 or array.shape[1] != card.width or not numbers:
        found = f"expected numbers (T, {card.width}), found {array.dtype} {array.shape}"
        fits_raw = transform is not None and array.ndim == 2 and array.shape[1] == transform.width
        hint = "; are they raw features (raw=True, --raw)?" if fits_raw and not raw else ""
        raise DataError(f"{what}: {found}{hint}")
    if card.tokens is not None:
        if not card.tokens.is_valid(array):
            raise DataError(f"{what}: expected {card.tokens.expected}")
        return array.astype(np.int32)
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise DataError(f"{what}: inf or NaN among the features")
    return array
