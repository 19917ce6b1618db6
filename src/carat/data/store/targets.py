"""Labels with unknown values: 0 and 1 in two arrays of a store, or NaN in one array of targets."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def to_targets(labels: NDArray[Any], known: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Join labels and what is known of them.

    Args:
        labels: (…, L), 0 or 1, or graded in [0, 1].
        known: (…, L).

    Returns:
        (…, L), the labels, NaN where unknown.

    >>> to_targets(np.array([1, 0]), np.array([True, False]))
    array([ 1., nan], dtype=float32)
    """
    targets: NDArray[np.float32] = labels.astype(np.float32)
    if not known.all():
        targets[~known] = np.nan
    return targets


def from_targets(targets: ArrayLike, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Split targets into labels and what is known of them.

    Args:
        targets: (L,), 0 or 1; NaN or None where unknown.
        size: L.

    Returns:
        Labels (L,), 0 where unknown, and which of them are known (L,).

    Raises:
        ValueError: another shape or value.

    >>> from_targets([1, None, float("nan")], 3)
    (array([1, 0, 0], dtype=uint8), array([ True, False, False]))
    """
    array = np.asarray(targets)
    if array.dtype == object and all(x is None or isinstance(x, Real) for x in array.flat):
        array = array.astype(np.float64)
    unknown = np.isnan(array) if array.dtype.kind == "f" else np.zeros(array.shape, dtype=bool)
    if array.shape != (size,) or not (unknown | np.isin(array, (0, 1))).all():
        raise ValueError(
            f"labels must be {size} values of 0 or 1, found {array}; NaN or None where a label is unknown"
        )
    return np.where(unknown, 0, array).astype(np.uint8), ~unknown
