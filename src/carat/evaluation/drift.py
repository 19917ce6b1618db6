"""How far inputs and scores are from those of training: distances, quantiles, and shifts with numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from carat.evaluation.bootstrap import Interval


QUANTILES = np.linspace(0, 1, 101)
"""Quantiles that are kept of distances and scores."""
LIMIT = 0.99
"""Quantile of the distances in validation beyond which an input is unusual."""
MAX_WIDTH = 2048
"""Width of features beyond which covariances are left out."""


@dataclass(frozen=True)
class Reference:
    """Distribution of one modality in training. Either of features averaged over time, or of tokens.

    Args:
        quantiles: (101,) quantiles of the distances of validation samples; of training ones, too, if these
            are few.
        presence: fraction of training samples that have the modality.
        mean: (d,) of features averaged over time.
        scale: (d,) their standard deviation.
        factor: (d, d) Cholesky factor of the inverse of their shrunk correlation matrix, or (0, 0) for none.
        seen: (V,) whether each token occurs in training; (0,) for features.
    """

    quantiles: NDArray[np.float64]
    presence: float
    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    factor: NDArray[np.float64]
    seen: NDArray[np.bool_]

    @property
    def limit(self) -> float:
        """Distance beyond which an input is unusual."""
        return float(np.interp(LIMIT, QUANTILES, self.quantiles))

    @property
    def reads_tokens(self) -> bool:
        """Whether distances are fractions of tokens that do not occur in training."""
        return len(self.seen) > 0

    def distances(self, features: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Distances (B,) of sequences, NaN where a sample lacks the modality.

        Of features: Mahalanobis distance of their mean over time, divided by the root of the width, so that
        it is about 1 in training. Of tokens: fraction that does not occur in training.

        Args:
            features: (B, T, d), or tokens (B, T) or (B, T, 2), whose second number marks context.
            mask: (B, T), valid = True.
        """
        steps = mask.sum(1)
        with np.errstate(invalid="ignore"):
            if self.reads_tokens:
                ids = features[..., 0] if features.ndim == 3 else features
                known = self.seen[np.clip(ids.astype(np.int64), 0, len(self.seen) - 1)]
                return np.where(steps > 0, (~known & mask).sum(1) / np.maximum(steps, 1), np.nan)
            means = mean_over_time(features, mask)
            z = (means - self.mean) / self.scale
            z = z @ self.factor if len(self.factor) else z
            return np.where(steps > 0, np.sqrt(np.square(z).mean(1)), np.nan)


def mean_over_time(features: NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean (B, d) of features (B, T, d) over valid steps (B, T); 0 without any."""
    sums = np.einsum("btd,bt->bd", features.astype(np.float64), mask.astype(np.float64))
    return np.asarray(sums / np.maximum(mask.sum(1, keepdims=True), 1))


def fit_features(means: NDArray[np.float64], presence: float) -> Reference:
    """Fit the distribution of time-averaged features (N, d) of training, without quantiles of distances.

    Source: Ledoit and Wolf 2004, for the shrinkage of the correlation matrix.
    """
    mean, scale = means.mean(0), means.std(0)
    scale = np.where(scale > 1e-6 * np.maximum(np.abs(mean), 1e-6), scale, 1.0)
    factor = np.zeros((0, 0))
    if len(means) > 1 and means.shape[1] <= MAX_WIDTH:
        from sklearn.covariance import ledoit_wolf

        shrunk, _ = ledoit_wolf((means - mean) / scale, assume_centered=True)
        shrunk += 1e-3 * np.eye(len(shrunk))  # constant features
        factor = np.linalg.cholesky(np.linalg.inv(shrunk))
    return Reference(np.zeros(len(QUANTILES)), presence, mean, scale, factor, np.zeros(0, bool))


def quantiles_of(values: NDArray[Any]) -> NDArray[np.float64]:
    """Quantiles (101, …) of the finite values along the first axis; zeros without any."""
    finite = values[np.isfinite(values)] if values.ndim == 1 else values
    if not len(finite):
        return np.zeros((len(QUANTILES), *values.shape[1:]))
    return np.quantile(finite.astype(np.float64), QUANTILES, axis=0)


def distribution_shift(values: NDArray[Any], quantiles: NDArray[np.float64]) -> float:
    """Largest difference of two cumulative distributions (Kolmogorov-Smirnov), one given by quantiles (101,).

    Its resolution is .01; NaN without finite values.
    """
    finite = np.sort(values[np.isfinite(values)])
    if not len(finite):
        return float("nan")
    below = np.searchsorted(finite, quantiles, side="left") / len(finite)
    up_to = np.searchsorted(finite, quantiles, side="right") / len(finite)
    _, first, number = np.unique(quantiles, return_index=True, return_counts=True)
    last = first + number - 1  # several quantiles may be one value
    return float(max(0.0, np.max(below[first] - QUANTILES[first]), np.max(QUANTILES[last] - up_to[last])))


def mean_by_group(values: NDArray[Any], groups: NDArray[Any]) -> tuple[float, Interval]:
    """Mean of the finite values (N,) with its 95 % interval by resampling groups (N,)."""
    from carat.evaluation.bootstrap import percentiles, resample

    finite = np.isfinite(values)
    if not finite.any():
        return float("nan"), (float("nan"), float("nan"))
    _, code = np.unique(groups[finite], return_inverse=True)
    sums = np.bincount(code, weights=values[finite].astype(np.float64))
    number = np.bincount(code).astype(np.float64)
    mean = float(sums.sum() / number.sum())
    if len(number) < 2:
        return mean, (float("nan"), float("nan"))
    draws = resample(len(number))
    return mean, percentiles(draws @ sums / (draws @ number))


@dataclass(frozen=True)
class ModalityDrift:
    """Shift of one modality; NaN where undefined."""

    presence: float
    """Fraction of samples that have it."""
    presence_before: float
    unusual: float
    """Fraction of samples beyond the limit that 1 % of validation samples exceed."""
    unusual_interval: Interval
    shift: float
    """Kolmogorov-Smirnov distance of the distances from those of validation."""


@dataclass(frozen=True)
class LabelDrift:
    """Shift of the scores of one label; NaN where undefined."""

    shift: float
    """Kolmogorov-Smirnov distance of raw scores from those of validation."""
    predicted: float
    """Fraction of samples that are predicted to have the label."""
    predicted_interval: Interval
    predicted_before: float
    """The same on validation."""
    rate: float
    """Fraction that has it, where the new data has labels."""
    rate_before: float
    """The same in training."""

    @property
    def is_shifted(self) -> bool:
        """Whether the earlier fraction of predictions is outside the interval."""
        low, high = self.predicted_interval
        return not low <= self.predicted_before <= high if np.isfinite([low, high]).all() else False


def to_arrays(references: Mapping[str, Reference]) -> dict[str, NDArray[Any]]:
    """Arrays of references, named `modality/field`."""
    return {
        f"{m}/{name}": np.asarray(value) for m, x in references.items() for name, value in vars(x).items()
    }
