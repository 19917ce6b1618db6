"""Reading and validation of feature arrays for prediction."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from carat.data.arrays import ArrayFile
from carat.data.store.transform import Transform
from carat.runs.card import ModalityCard
from carat.utils.errors import DataError, did_you_mean

Sample = dict[str, NDArray[Any]]
"""Features (T, d) by modality."""


class AbsentError(DataError):
    """A sample has no modality."""


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
    loaded = ArrayFile(path)
    if not loaded:
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
    raw: bool | None,
) -> Sample:
    """Validate and clean a sample, and convert it to the arrays of a batch.

    Args:
        sample: (T, d) by modality, without absent modalities.
        name: name of the sample for error messages.
        cards: what the run expects, by modality.
        max_length: maximum number of time steps of the model, by modality.
        truncation: truncate longer sequences; if False, they are an error.
        raw: clean the features as those of the training store were. None does so where cleaning features
            twice changes nothing, and otherwise demands a choice.

    Returns:
        float32 features or int32 tokens (T, d) by modality, without those absent after cleaning.

    Raises:
        AbsentError: no modality is present.
        DataError: unknown modality, wrong shape or type, non-finite features, too long, or `raw` must be
            chosen.
    """
    arrays = {}
    for m, values in sample.items():
        if m not in cards:
            hint = did_you_mean(m, cards) or f"; the run knows: {', '.join(cards)}"
            raise DataError(f"{name}: unknown modality '{m}'{hint}")
        array = _check_array(np.asarray(values), f"{name}, {m}", cards[m], raw)
        if not len(array):
            continue
        if len(array) > max_length[m]:
            if not truncation:
                raise DataError(
                    f"{name}, {m}: {len(array)} steps, but max_length is {max_length[m]}; truncate the "
                    f"sequence"
                )
            array = array[: max_length[m]]
        arrays[m] = array
    if not arrays:
        given = f" ({', '.join(sample)}: empty, or all zeros, inf or NaN)" if sample else ""
        raise AbsentError(
            f"{name}: no modality is present{given}; at least one of {', '.join(cards)} is needed"
        )
    return arrays


def absence_notes(samples: Iterable[Mapping[str, Any]], checked: Iterable[Mapping[str, Any]]) -> list[str]:
    """Count the samples in which a given modality is absent after cleaning, one line per modality.

    Args:
        samples: samples as given, by modality.
        checked: the same samples after `check_sample`.
    """
    absent = Counter(
        m for sample, kept in zip(samples, checked, strict=True) for m in sample if m not in kept
    )
    return [f"{m} is absent from {n} samples: empty, or all zeros, inf or NaN" for m, n in absent.items()]


def select_modalities(
    samples: Mapping[str, Mapping[str, NDArray[Any]]], cards: Mapping[str, ModalityCard]
) -> tuple[dict[str, Sample], list[str]]:
    """Drop the modalities that a run does not use, if every sample has at least one that it uses.

    Args:
        samples: features (T, d) by sample ID and modality.
        cards: what the run expects, by modality.

    Returns:
        The samples, and a note on dropped modalities.
    """
    notes = []
    unused = {m for sample in samples.values() for m in sample} - cards.keys()
    if unused and all(sample.keys() & cards.keys() for sample in samples.values()):
        samples = {id: {m: x for m, x in sample.items() if m in cards} for id, sample in samples.items()}
        notes.append(f"the run does not use: {', '.join(sorted(unused))}")
    return {id: dict(sample) for id, sample in samples.items()}, notes


def _check_array(array: NDArray[Any], where: str, card: ModalityCard, raw: bool | None) -> NDArray[Any]:
    transform, is_numeric = card.transform, array.dtype.kind in "fiu"
    if raw is None and transform is not None and array.ndim == 2 and len(array):
        raw = _looks_raw(array, where, transform)
    if raw is not False and transform is not None and array.ndim == 2 and is_numeric:
        array = transform.clean(array, where).features
    if array.ndim != 2 or array.shape[1] != card.width or not is_numeric:
        fits_raw = transform is not None and array.ndim == 2 and array.shape[1] == transform.width
        hint = "; are they features as extracted (raw=True, --raw)?" if fits_raw and not raw else ""
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


def _looks_raw(array: NDArray[Any], where: str, transform: Transform) -> bool:
    """Decide by its width whether an array is to be cleaned; cleaning twice may change nothing.

    Raises:
        DataError: features as extracted and standardised ones would look alike.
    """
    if transform.drop_columns:
        return bool(array.shape[1] == transform.width)
    if transform.mean:
        raise DataError(
            f"{where}: the run was trained on standardised features: say whether these are features as "
            "extracted (raw=True, --raw) or as a store holds them (raw=False, --no-raw)"
        )
    return True
