"""Labels with unknown values, as metrics take them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def split_labels(labels: NDArray[Any]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Split labels into those that are present and those that are known.

    Args:
        labels: (N, L), 0 or 1, or floats with NaN where unknown.

    Returns:
        Whether each label is known to be present (N, L), and whether it is known (N, L).

    >>> split_labels(np.array([[1, np.nan, 0]]))
    (array([[ True, False, False]]), array([[ True, False,  True]]))
    """
    known = ~np.isnan(labels) if labels.dtype.kind == "f" else np.ones(labels.shape, dtype=bool)
    return np.where(known, labels, 0).astype(bool), known
