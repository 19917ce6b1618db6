"""Statistics of a store, and warnings about its data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.data.gaps import describe_gaps, untrained_modalities
from carat.data.loader import usable_rows
from carat.data.store import Store
from carat.utils.errors import DataError, shorten


def summarize(store: Store) -> dict[str, Any]:
    """Compute statistics of a store: splits, labels, co-occurrence, lengths and missing modalities.

    Args:
        store: an open store.

    Returns:
        JSON-serializable dict with the keys

        - name, fingerprint, samples, groups, notes;
        - shared_groups: groups with samples in more than one split, whose evaluation is not independent of
          training;
        - splits: samples by split;
        - corpora: samples by corpus and split; empty if the store has a single corpus;
        - labels: by split, positives of each label, samples in which it is known, mean labels per sample
          (cardinality), and the fraction of samples without any label; both over the samples all of whose
          labels are known, and None if there are none;
        - co_occurrence: samples that have both labels, by label and label;
        - modalities: by modality, width, dtype, source, cleaning, quantiles of the number of time steps, and
          by split the samples that have the modality (present) or lack it (missing).
    """
    splits = {split: store.indices(split) for split in store.manifest.splits}
    labels = np.asarray(store.labels).astype(np.int64)
    known = np.asarray(store.known)
    co_occurrence = labels.T @ labels
    names = store.label_names
    return {
        "name": store.manifest.name,
        "fingerprint": store.manifest.fingerprint,
        "samples": len(store),
        "groups": len(np.unique(store.groups)),
        "shared_groups": len(shared_groups(store)),
        "splits": dict(store.manifest.splits),
        "corpora": _count_corpora(store, splits),
        "labels": {
            split: _summarize_labels(names, labels[rows], known[rows]) for split, rows in splits.items()
        },
        "co_occurrence": {
            a: {b: int(co_occurrence[i, j]) for j, b in enumerate(names)} for i, a in enumerate(names)
        },
        "modalities": {m: _summarize_modality(store, m, splits) for m in store.modalities},
        "notes": store.manifest.notes,
    }


def _count_corpora(store: Store, splits: Mapping[str, NDArray[np.int64]]) -> dict[str, dict[str, int]]:
    """Count the samples of each corpus by split; empty if there is a single corpus."""
    if store.corpora is None:
        return {}
    names = dict.fromkeys(store.corpora.tolist())
    return {
        name: {split: int((store.corpora[rows] == name).sum()) for split, rows in splits.items()}
        for name in names
    }


def shared_groups(store: Store) -> list[str]:
    """Return the groups that have samples in more than one split, sorted."""
    splits_of: dict[str, set[str]] = {}
    for split in store.manifest.splits:
        for group in np.unique(store.groups[store.indices(split)]).tolist():
            splits_of.setdefault(group, set()).add(split)
    return sorted(group for group, splits in splits_of.items() if len(splits) > 1)


def leakage_notes(store: Store) -> list[str]:
    """Describe the groups that are in more than one split, in at most one line."""
    shared = shared_groups(store)
    return [f"{describe_shared_groups(len(shared))}, e.g. '{shared[0]}'"] if shared else []


def describe_shared_groups(count: int) -> str:
    """Format the number of groups that are in more than one split, at least 1."""
    return f"{f'{count} groups have' if count > 1 else '1 group has'} samples in more than one split"


def exclusion_notes(store: Store, split: str, modalities: Sequence[str]) -> list[str]:
    """Describe the samples of a split that have none of the modalities, in at most one line.

    Raises:
        DataError: no sample of the split has any of the modalities.
    """
    usable = usable_rows(store, split, [m for m in modalities if m in store.modalities])
    excluded = store.manifest.splits[split] - len(usable)
    if not excluded:
        return []
    return [f"{excluded} samples of split '{split}' excluded: they have none of {', '.join(modalities)}"]


def store_warnings(store: Store) -> list[str]:
    """Warn about data that makes scores unreliable: gaps, unknown labels, and leakage between splits."""
    notes = store_gaps(store, ("train", "valid")) + unknown_notes(store, ("train", "valid"))
    return notes + [
        f"{note}: scores will be optimistic (leakage between splits)" for note in leakage_notes(store)
    ]


def unknown_notes(store: Store, splits: Sequence[str] | None = None) -> list[str]:
    """Describe how many labels are unknown, one line per split that has any; `splits` defaults to all."""
    lines = []
    for split in splits or store.manifest.splits:
        known = store.known[store.indices(split)]
        counts = dict(zip(store.label_names, (~known).sum(0).tolist(), strict=True))
        if listed := ", ".join(f"{name} {count}" for name, count in counts.items() if count):
            unknown = f"{sum(counts.values())} of {known.size} labels are unknown"
            lines.append(f"split '{split}': {unknown} ({shorten(listed, 120)})")
    return lines


def check_measurable(store: Store, split: str) -> None:
    """Check that a split has something to measure.

    Raises:
        DataError: there is no such split, or none of its samples has a known label.
    """
    if not np.any(store.known[store.indices(split)]):
        raise DataError(f"{store.folder}: no sample of split '{split}' has a known label to measure")


def store_gaps(store: Store, splits: Sequence[str] | None = None) -> list[str]:
    """Describe what has no example in some splits, see `describe_gaps`; `splits` defaults to all."""
    rows = {split: store.indices(split) for split in splits or store.manifest.splits}
    return describe_gaps(store.label_names, np.asarray(store.labels), _present(store), rows)


def trainable_modalities(store: Store) -> list[str]:
    """Return the modalities that at least one training sample has."""
    absent = untrained_modalities(_present(store), {"train": store.indices("train")})
    return [m for m in store.modalities if m not in absent]


def _present(store: Store) -> dict[str, NDArray[np.bool_]]:
    """Whether each sample has a modality, (N,) by modality."""
    return {m: store.lengths(m) > 0 for m in store.modalities}


def _summarize_labels(
    names: Sequence[str], labels: NDArray[np.int64], known: NDArray[np.bool_]
) -> dict[str, Any]:
    number = labels[known.all(1)].sum(1)
    return {
        "positives": dict(zip(names, labels.sum(0).tolist(), strict=True)),
        "known": dict(zip(names, known.sum(0).tolist(), strict=True)),
        "cardinality": float(number.mean()) if len(number) else None,
        "without_label": float((number == 0).mean()) if len(number) else None,
    }


def _summarize_modality(store: Store, modality: str, splits: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
    info = store.manifest.modalities[modality]
    lengths = store.lengths(modality)
    present = lengths[lengths > 0]
    quantiles = np.quantile(present, [0, 0.5, 0.95, 1]).round().astype(int).tolist()
    return {
        "width": info.width,
        "dtype": info.dtype,
        "source": info.source,
        "cleaning": info.cleaning,
        "steps": dict(zip(("shortest", "median", "95 %", "longest"), quantiles, strict=True)),
        "present": {split: int((lengths[rows] > 0).sum()) for split, rows in splits.items()},
        "missing": {split: int((lengths[rows] == 0).sum()) for split, rows in splits.items()},
    }
