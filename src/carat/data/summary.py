"""What a store holds, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from carat.data.loader import usable_rows
from carat.data.store import Store


def summarize(store: Store) -> dict[str, Any]:
    """Splits, label counts, co-occurrence, lengths and missing modalities as plain data.

    Returns:
        Keys: name, fingerprint, samples, groups, shared_groups (in more than one split: their samples are not
        independent of the training data), splits, labels (per split: positives, cardinality, share
        without any label), co_occurrence (label → label → samples), modalities (width, dtype, source,
        cleaning, steps, and per split the samples that have and lack it), notes.
    """
    splits = {split: store.indices(split) for split in store.manifest.splits}
    labels = np.asarray(store.labels).astype(np.int64)
    together = labels.T @ labels
    names = store.label_names
    return {
        "name": store.manifest.name,
        "fingerprint": store.manifest.fingerprint,
        "samples": len(store),
        "groups": len(np.unique(store.groups)),
        "shared_groups": len(shared_groups(store)),
        "splits": dict(store.manifest.splits),
        "labels": {
            split: {
                "positives": dict(zip(names, labels[rows].sum(0).tolist(), strict=True)),
                "cardinality": float(labels[rows].sum(1).mean()),
                "without_label": float((labels[rows].sum(1) == 0).mean()),
            }
            for split, rows in splits.items()
        },
        "co_occurrence": {
            a: {b: int(together[i, j]) for j, b in enumerate(names)} for i, a in enumerate(names)
        },
        "modalities": {m: _modality(store, m, splits) for m in store.modalities},
        "notes": store.manifest.notes,
    }


def shared_groups(store: Store) -> list[str]:
    """Groups that have samples in more than one split, sorted."""
    seen: dict[str, set[str]] = {}
    for split in store.manifest.splits:
        for group in np.unique(store.groups[store.indices(split)]).tolist():
            seen.setdefault(group, set()).add(split)
    return sorted(group for group, splits in seen.items() if len(splits) > 1)


def leak(store: Store) -> list[str]:
    """A sentence on groups in more than one split, or none."""
    shared = shared_groups(store)
    return [f"{split_groups(len(shared))}, e.g. '{shared[0]}'"] if shared else []


def split_groups(count: int) -> str:
    """That so many groups are in more than one split."""
    return f"{f'{count} groups have' if count > 1 else '1 group has'} samples in more than one split"


def left_out(store: Store, split: str, wanted: Sequence[str]) -> list[str]:
    """A sentence on samples of a split that have none of the wanted modalities, or none.

    Raises:
        DataError: no sample of the split has any of them.
    """
    usable = usable_rows(store, split, [m for m in wanted if m in store.modalities])
    missing = store.manifest.splits[split] - len(usable)
    return [f"{missing} samples of {split} left out: none of {', '.join(wanted)} present"] if missing else []


def cautions(store: Store) -> list[str]:
    """What makes results of a training on this store doubtful, in words."""
    found = []
    for split in ("train", "valid"):
        positives = np.asarray(store.labels)[store.indices(split)].sum(0)
        silent = [name for name, count in zip(store.label_names, positives, strict=True) if not count]
        if silent:
            found.append(f"no sample of {split} has: {', '.join(silent)}")
    return found + [f"{sentence}: scores flatter" for sentence in leak(store)]


def _modality(store: Store, modality: str, splits: dict[str, Any]) -> dict[str, Any]:
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
