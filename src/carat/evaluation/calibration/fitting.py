"""Choice of a calibration map for each label, by log loss in cross-validation over groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from carat.evaluation.calibration.maps import EDGE, KINDS, Kind, ScoreMap
from carat.evaluation.known import split_labels

FEWEST, FEW = 10, 30
"""Known positives or negatives below which a label keeps its scores, or gets a temperature at most."""
FOLDS = 5
LARGEST = 1e3
"""Limit of the parameters of a map."""


@dataclass(frozen=True)
class LabelFit:
    """The map that was chosen for a label, and on what."""

    score_map: ScoreMap
    positives: int
    known: int
    """Samples in which the label is known."""
    log_loss: dict[str, float] = field(default_factory=dict)
    """Cross-validated log loss by kind of map that was tried."""
    note: str = ""
    """Why fewer kinds were tried."""

    def to_record(self) -> dict[str, Any]:
        """Plain data; see `Calibration.to_records`."""
        return asdict(self.score_map) | {
            "positives": self.positives,
            "known": self.known,
            "log_loss": self.log_loss,
            "note": self.note,
        }


@dataclass(frozen=True)
class Calibration:
    """Maps of all labels, and scores to judge them by."""

    labels: dict[str, LabelFit]
    held_out: NDArray[np.float64]
    """Scores (N, L), each mapped by maps of the chosen kind that were fitted on other groups."""

    def to_records(self) -> dict[str, dict[str, Any]]:
        """Plain data by label, as `carat.runs.calibration.LabelCalibration` keeps it."""
        return {name: fit.to_record() for name, fit in self.labels.items()}


def calibrate(
    scores: NDArray[Any],
    labels: NDArray[Any],
    groups: NDArray[Any],
    names: Sequence[str],
    kind: Kind | Literal["auto"] = "auto",
) -> Calibration:
    """Fit a map of scores to probabilities for each label.

    Args:
        scores: (N, L), in [0, 1].
        labels: (N, L), 0 or 1, NaN where unknown; only known labels count.
        groups: (N,) group names; samples of a group are in the same fold.
        names: L label names.
        kind: "auto" for the kind with the smallest cross-validated log loss, or one kind for all labels. In
            either case labels with few positives or negatives get a temperature, or keep their scores.
    """
    true, known = split_labels(labels)
    held_out = scores.astype(np.float64)
    fits = {}
    with sklearn.config_context(skip_parameter_validation=True):  # of some hundred small regressions
        for i, name in enumerate(names):
            rows = known[:, i]
            fits[name], held_out[rows, i] = fit_label(scores[rows, i], true[rows, i], groups[rows], kind)
    return Calibration(fits, held_out)


def fit_label(
    scores: NDArray[Any], true: NDArray[np.bool_], groups: NDArray[Any], kind: Kind | Literal["auto"]
) -> tuple[LabelFit, NDArray[np.float64]]:
    """Choose the map of one label from its scores, true labels and groups, (N,) each.

    Returns:
        The map, and the scores mapped by maps of its kind that were fitted on other groups (N,).
    """
    s = np.clip(scores.astype(np.float64), 0, 1)
    positives, fewer = int(true.sum()), int(min(true.sum(), (~true).sum()))
    kinds, note = _allowed(kind, fewer, len(np.unique(s)))
    folds = list(_folds(s, true, groups)) if len(kinds) > 1 or kinds[0] != "none" else []
    if not folds and kinds != ["none"]:
        kinds, note = ["none"], "its positives are in too few groups"
    if kinds == ["none"]:
        return LabelFit(ScoreMap(), positives, len(s), {}, note), s
    mapped = {k: _held_out(k, s, true, folds) for k in kinds}
    losses: dict[str, float] = {k: log_loss(x, true) for k, x in mapped.items()}
    best = min(kinds, key=lambda k: losses[k])  # of equals, the one with the fewest parameters
    score_map = fit_map(best, s, true)
    if score_map is None:
        return LabelFit(ScoreMap(), positives, len(s), losses, "its scores do not rise with it"), s
    return LabelFit(score_map, positives, len(s), losses, note), mapped[best]


def _allowed(kind: Kind | Literal["auto"], fewer: int, values: int) -> tuple[list[Kind], str]:
    """Kinds that may be tried, and why they are not all."""
    if kind == "none":
        return ["none"], ""
    if fewer < FEWEST:
        return ["none"], f"{fewer} positives or negatives, fewer than {FEWEST}"
    if values < 2:
        return ["none"], "its scores are constant"
    if fewer < FEW and kind != "temperature":
        return ["none", "temperature"], f"{fewer} positives or negatives, fewer than {FEW}"
    return (list(KINDS) if kind == "auto" else [kind]), ""


def _folds(
    scores: NDArray[Any], true: NDArray[np.bool_], groups: NDArray[Any]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows of training and test folds; none if there are too few groups with and without the label."""
    number = min(FOLDS, *(len(np.unique(groups[true == value])) for value in (True, False)))
    if number < 2:
        return
    folds = list(GroupKFold(number, shuffle=True, random_state=0).split(scores, groups=groups))
    if all(0 < true[train].sum() < len(train) for train, _ in folds):
        yield from folds


def _held_out(
    kind: Kind, scores: NDArray[np.float64], true: NDArray[np.bool_], folds: list[Any]
) -> NDArray[np.float64]:
    mapped = scores.copy()
    for train, test in folds:
        score_map = fit_map(kind, scores[train], true[train])
        if score_map is not None:
            mapped[test] = score_map(scores[test])
    return mapped


def fit_map(kind: Kind, scores: NDArray[np.float64], true: NDArray[np.bool_]) -> ScoreMap | None:
    """Fit one kind of map to scores and true labels (N,); None if it would not be increasing."""
    if kind == "none":
        return ScoreMap()
    if kind == "isotonic":
        edge = 1 / (len(scores) + 2)  # no frequency of 0 or 1 from few samples
        isotonic = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(scores, true)
        return ScoreMap(kind, x=isotonic.X_thresholds_.tolist(), y=isotonic.y_thresholds_.tolist())
    s = np.clip(scores, EDGE, 1 - EDGE)
    logs = np.stack([np.log(s), -np.log1p(-s)], axis=1)
    if kind != "beta":
        slope, offset = _logistic(logs.sum(1, keepdims=True), true, intercept=kind == "platt")
        return _increasing(kind, slope[0], slope[0], offset)
    slopes, offset = _logistic(logs, true)
    for i in np.flatnonzero(slopes < 0)[:1]:  # as in the paper: without the part of the wrong sign
        kept, offset = _logistic(logs[:, [1 - i]], true)
        slopes = np.array([0.0, 0.0])
        slopes[1 - i] = kept[0]
    return _increasing(kind, slopes[0], slopes[1], offset)


def _increasing(kind: Kind, a: float, b: float, c: float) -> ScoreMap | None:
    rises = a >= 0 and b >= 0 and a + b > 0
    fits = np.isfinite([a, b, c]).all() and max(a, b, abs(c)) <= LARGEST
    return ScoreMap(kind, float(a), float(b), float(c)) if rises and fits else None


def _logistic(
    features: NDArray[np.float64], true: NDArray[np.bool_], intercept: bool = True
) -> tuple[NDArray[np.float64], float]:
    """Logistic regression with Platt's targets, which keep it finite where scores separate the labels."""
    positives, number = int(true.sum()), len(true)
    target = np.where(true, (positives + 1) / (positives + 2), 1 / (number - positives + 2))
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, solver="newton-cholesky")
    classes = np.repeat([1, 0], number)
    model.fit(np.vstack([features, features]), classes, sample_weight=np.concatenate([target, 1 - target]))
    return model.coef_[0], float(model.intercept_[0]) if intercept else 0.0


def log_loss(scores: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """Mean negative log likelihood of true labels (N,)."""
    p = np.clip(scores, EDGE, 1 - EDGE)
    return float(-np.where(true, np.log(p), np.log1p(-p)).mean())
