"""Checks of the labels of a store: unknown ones, frequencies, and samples without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.checks.features import CheckContext, Verdict, some
from carat.data.summary import unknown_notes


def unknown_labels(c: CheckContext) -> tuple[Verdict, str]:
    """Check that every label is known in some samples of every split."""
    if not c.store.has_unknown:
        return "ok", "none"
    names = np.array(c.store.label_names)
    never = {
        split: [f"'{name}'" for name in names[~np.any(c.store.known[rows], axis=0)].tolist()]
        for split, rows in c.splits.items()
        if len(rows)
    }
    if missing := never.pop("train", []):
        return "fail", f"no training sample has a known label {some(missing)}, which cannot be learned"
    for split, missing in never.items():
        if missing:
            return "warn", f"{split} has no known label {some(missing)}, so that nothing is measured there"
    return "ok", "; ".join(unknown_notes(c.store))


def label_frequencies(c: CheckContext) -> tuple[Verdict, str]:
    """Check for constant labels, and for splits whose labels are in another order."""
    names = c.store.label_names
    frequencies = {split: _frequencies(c, rows) for split, rows in c.splits.items() if len(rows)}
    if "train" not in frequencies:
        return "ok", "not possible without a train split"
    train = frequencies.pop("train")
    for adverb, value in (("never", 0), ("always", 1)):
        if constant := [f"'{name}'" for name, x in zip(names, train, strict=True) if x == value]:
            return "warn", f"train {adverb} has {some(constant)}, which cannot be learned; check the labels"
    for split, other in frequencies.items():
        if min(len(c.splits[split]), len(c.splits["train"])) < 100:
            continue
        order = np.empty(len(names), dtype=int)
        order[np.argsort(other)] = np.argsort(train)
        difference, reordered = np.abs(other - train).max(), np.abs(other - train[order]).max()
        if difference > 0.1 and reordered < 0.03:
            swaps = [f"'{names[i]}' is as frequent as '{names[j]}'" for i, j in enumerate(order) if i != j]
            return "warn", f"label order in {split} seems to differ from train: {some(swaps)}"
    for split, other in frequencies.items():
        if absent := [f"'{name}'" for name, x in zip(names, other, strict=True) if x == 0]:
            return "warn", f"{split} never has {some(absent)}, so that nothing is measured there"
    percent = [f"{name} {100 * x:.0f}%" for name, x in zip(names, train, strict=True) if x == x]
    return "ok", f"in train {', '.join(percent)}"


def _frequencies(c: CheckContext, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Fraction of positives among the known labels (L,); NaN if there are none."""
    known = c.store.known[rows].sum(0)
    with np.errstate(invalid="ignore"):
        fractions: NDArray[np.float64] = np.asarray(c.store.labels)[rows].sum(0, dtype=np.float64) / known
    return fractions


def samples_without_labels(c: CheckContext) -> tuple[Verdict, str]:
    """Check for unusually many samples without labels."""
    unlabeled = np.asarray(c.store.labels).sum(1) == 0
    is_known: NDArray[np.bool_] = np.all(c.store.known, axis=1)
    known = {split: rows[is_known[rows]] for split, rows in c.splits.items()}
    fractions = {split: float(unlabeled[rows].mean()) for split, rows in known.items() if len(rows)}
    if not fractions:
        return "ok", "not possible, because no sample has all labels known"
    listed = ", ".join(f"{split} {x:.0%}" for split, x in fractions.items())
    if max(fractions.values()) > 0.6:
        return "warn", f"many samples without labels: {listed}; check how the labels were read"
    compared = [x for split, x in fractions.items() if len(known[split]) >= 50]
    if compared and max(compared) - min(compared) > 0.2:
        return "warn", f"splits differ in samples without labels: {listed}; check that all were labeled alike"
    return "ok", listed


def format_counts(names: Sequence[str], counts: NDArray[Any], unit: str = "") -> str:
    """Format counts by name, such as `sad 3, glad 5`."""
    return ", ".join(f"{name} {count}{unit}" for name, count in zip(names, counts.tolist(), strict=True))
