"""Conformal risk control by group: labels that are present, absent or unsure, at a promised error rate.

Conformal libraries offer prediction sets of one of several classes (crepes), or one threshold for all labels
on samples that are exchangeable (MAPIE). Here every label has bounds of its own, and groups (videos,
dialogues, speakers) are exchangeable, not the samples in them.

Source: Angelopoulos, Bates, Fisch, Lei, Schuster, "Conformal risk control", ICLR 2024, theorem 1 and, for the
false-discovery proportion, section 2.4 (losses that are not monotone). The loss of a group is its rate of
errors, so that the bound holds for the mean over groups.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.evaluation.known import split_labels

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from carat.evaluation.bootstrap import Interval

RISKS = tuple(round(0.01 * i, 2) for i in range(1, 51))
"""Risks for which bounds are kept; others are rounded down to one of them."""
ROUNDING = 1e-9
"""Of sums of rates."""

PRESENT, ABSENT, UNSURE = "present", "absent", "unsure"


@dataclass(frozen=True)
class Bounds:
    """Bounds of the scores of one label, by risk in the order of `RISKS`; None where groups are too few."""

    groups: int
    """Groups in which the label is known."""
    positive_groups: int
    """Groups that have the label."""
    absent: list[float | None]
    """Below this score the label may be called absent: the false-negative rate is at most the risk."""
    present: list[float | None]
    """Above this score it may be called present: the false-discovery rate is at most the risk."""


def fit_bounds(
    scores: NDArray[Any], labels: NDArray[Any], groups: NDArray[Any], names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Find the bounds of every label, as plain data by label.

    Args:
        scores: (N, L), in [0, 1].
        labels: (N, L), 0 or 1, NaN where unknown; unknown labels are left out.
        groups: (N,) group names.
        names: L label names.
    """
    true, known = split_labels(labels)
    _, code = np.unique(groups, return_inverse=True)
    return {
        name: asdict(_label_bounds(scores[rows, i], true[rows, i], code[rows]))
        for i, (name, rows) in enumerate(zip(names, known.T, strict=True))
    }


def needed_groups(risk: float) -> int:
    """Number of calibration groups from which a risk can be promised: 1 / risk - 1, rounded up."""
    return int(np.ceil(1 / risk - 1 - ROUNDING))


def _label_bounds(scores: NDArray[Any], true: NDArray[np.bool_], groups: NDArray[np.int64]) -> Bounds:
    own = groups[true]
    weights = 1 / np.bincount(own, minlength=1)[own] if len(own) else np.zeros(0)
    positive_groups, all_groups = len(np.unique(own)), len(np.unique(groups))
    missed = _Steps(scores[true], weights)
    parts = [_false_discoveries(scores[groups == g], true[groups == g]) for g in np.unique(groups)]
    nothing = np.zeros(0)
    at, height = (np.concatenate([nothing, *(part[i] for part in parts)]) for i in range(2))
    wrong = _Steps(at, height, descending=True)
    return Bounds(
        all_groups,
        positive_groups,
        [missed.bound(risk * (positive_groups + 1) - 1, 1.0) for risk in RISKS],
        [wrong.bound(risk * (all_groups + 1) - 1, 0.0) for risk in RISKS],
    )


@dataclass(frozen=True)
class _Steps:
    """Steps of a loss that is summed over groups: where they are, and how high."""

    at: NDArray[Any]
    height: NDArray[np.float64]
    descending: bool = False

    def bound(self, budget: float, end: float) -> float | None:
        """The first step with which the sum exceeds the budget; `end` if none does; None without budget."""
        if budget < -ROUNDING:
            return None
        order = np.argsort(-self.at if self.descending else self.at, kind="stable")
        beyond = np.flatnonzero(np.cumsum(self.height[order]) > budget + ROUNDING)
        return float(self.at[order][beyond[0]]) if len(beyond) else end


def _false_discoveries(
    scores: NDArray[Any], true: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Steps of the false-discovery proportion of a group as the bound falls, made monotone by its maximum."""
    falling, counts = np.unique(-scores, return_counts=True)
    order = np.argsort(-scores, kind="stable")
    called = np.cumsum(counts)
    proportion = np.cumsum(~true[order])[called - 1] / called
    return -falling, np.diff(np.maximum.accumulate(proportion), prepend=0.0)


def decide(
    scores: NDArray[Any],
    thresholds: NDArray[np.float64],
    absent: NDArray[np.float64] | None,
    present: NDArray[np.float64] | None,
) -> NDArray[np.str_]:
    """Call labels present, absent or unsure (N, L).

    A label is never called absent above its threshold, nor present below it, which only lowers both rates.

    Args:
        scores: (N, L).
        thresholds: (L,).
        absent: (L,) scores below which labels may be called absent, -inf for never; None for no bound.
        present: (L,) scores above which labels may be called present, inf for never; None for no bound.
    """
    above = scores > thresholds
    is_absent = ~above if absent is None else ~above & (scores < absent)
    is_present = above if present is None else above & (scores > present)
    return np.where(is_present, PRESENT, np.where(is_absent, ABSENT, UNSURE))


@dataclass(frozen=True)
class DecisionRates:
    """Rates of one label on a split; means over groups with 95 % intervals, NaN where undefined."""

    false_negatives: float
    """Mean over groups with the label: fraction of its samples that are called absent."""
    false_negatives_interval: Interval
    false_discoveries: float
    """Mean over groups: fraction of samples called present without the label, 0 if none is."""
    false_discoveries_interval: Interval
    unsure: float
    """Fraction of samples."""


def measure_decisions(
    decisions: NDArray[np.str_], labels: NDArray[Any], groups: NDArray[Any], names: Sequence[str]
) -> dict[str, DecisionRates]:
    """Measure decisions (N, L) by label on samples whose labels are known; see `fit_bounds`."""
    true, known = split_labels(labels)
    _, code = np.unique(groups, return_inverse=True)
    rates = {}
    for i, (name, rows) in enumerate(zip(names, known.T, strict=True)):
        called, is_true, of = decisions[rows, i], true[rows, i], code[rows]
        missed = _group_rates(called == ABSENT, is_true, of)
        wrong = _group_rates(~is_true, called == PRESENT, of, empty=0.0)
        unsure = float((called == UNSURE).mean()) if len(called) else float("nan")
        rates[name] = DecisionRates(*_mean_over_groups(missed), *_mean_over_groups(wrong), unsure)
    return rates


def _group_rates(
    event: NDArray[np.bool_],
    among: NDArray[np.bool_],
    groups: NDArray[np.int64],
    empty: float | None = None,
) -> NDArray[np.float64]:
    """Fraction of `among` with the event in each group; groups without any are left out, or get `empty`."""
    number = np.bincount(groups, weights=among)
    hits = np.bincount(groups, weights=event & among)
    there = np.bincount(groups) > 0
    rate = hits / np.maximum(number, 1)
    return rate[there & (number > 0)] if empty is None else np.where(number > 0, rate, empty)[there]


def _mean_over_groups(rates: NDArray[np.float64]) -> tuple[float, Interval]:
    from carat.evaluation.bootstrap import percentiles, resample

    if not len(rates):
        return float("nan"), (float("nan"), float("nan"))
    return float(rates.mean()), percentiles(resample(len(rates)) @ rates / len(rates))


def guarantee(
    risk: float | None, false_discovery: float | None, source: str, bounds: Mapping[str, Any]
) -> list[str]:
    """Say what is promised, under which assumption, and for which labels groups are too few."""
    lines = []
    if risk is not None:
        lines.append(
            f"promised for each label: in a new group, on average at most {risk:.0%} of the samples with the "
            "label are called absent"
        )
    if false_discovery is not None:
        lines.append(
            f"promised for each label: in a new group, on average at most {false_discovery:.0%} of the "
            "samples that are called present lack the label"
        )
    lines.append(f"this assumes that new groups (videos, dialogues) are drawn like those of {source}")
    for name, x in bounds.items():
        if risk is not None and x.positive_groups < needed_groups(risk):
            lines.append(
                f"'{name}' is never called absent: {x.positive_groups} groups have it, "
                f"{needed_groups(risk)} are needed"
            )
        if false_discovery is not None and x.groups < needed_groups(false_discovery):
            lines.append(
                f"'{name}' is never called present: it is known in {x.groups} groups, "
                f"{needed_groups(false_discovery)} are needed"
            )
    return lines
