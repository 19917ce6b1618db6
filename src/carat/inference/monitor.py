"""Unusual inputs of a run, and a report of drift on new data."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from carat.data.store import Store, open_store
from carat.evaluation.drift import (
    LabelDrift,
    ModalityDrift,
    Reference,
    distribution_shift,
    mean_by_group,
)
from carat.evaluation.known import split_labels
from carat.runs.card import RunCard
from carat.runs.reference import FIELDS, modalities_of, read_reference
from carat.utils.errors import RunError
from carat.utils.tables import Table

if TYPE_CHECKING:
    from carat.data.batch import Batch
    from carat.inference.predictor import Predictor


class InputCheck:
    """Distances of inputs from the training data of a run.

    Args:
        folder: the run.
        card: its card.

    Raises:
        RunError: the file of references is corrupt.
    """

    def __init__(self, folder: Path, card: RunCard) -> None:
        arrays = read_reference(folder, card)
        self.arrays: Mapping[str, NDArray[Any]] = arrays or {}
        self.is_known = arrays is not None
        """Whether the run has references."""
        known = modalities_of(self.arrays)
        self.references = {m: _reference(self.arrays, m) for m in card.modalities if m in known}

    def distances(self, batch: Batch) -> dict[str, NDArray[np.float64]]:
        """Distances (B,) by modality, NaN where a sample lacks it."""
        return {
            m: x.distances(batch.features[m].cpu().numpy(), batch.masks[m].cpu().numpy())
            for m, x in self.references.items()
        }

    def notes(self, batch: Batch) -> list[list[str]] | None:
        """What is unusual about each sample of a batch; None if the run has no references."""
        if not self.is_known:
            return None
        notes: list[list[str]] = [[] for _ in batch.rows]
        for m, distances in self.distances(batch).items():
            for i in np.flatnonzero(distances > self.references[m].limit):
                notes[i].append(_describe(m, self.references[m], float(distances[i])))
        return notes


def _reference(arrays: Mapping[str, NDArray[Any]], m: str) -> Reference:
    values: dict[str, Any] = {field: arrays[f"{m}/{field}"] for field in FIELDS}
    return Reference(**values | {"presence": float(values["presence"].item())})


def _describe(m: str, reference: Reference, distance: float) -> str:
    if reference.reads_tokens:
        usual = f"usually at most {reference.limit:.0%}"
        return f"{m}: {distance:.0%} of the tokens do not occur in training ({usual})"
    return f"{m}: unlike the training data, distance {distance:.1f} (usually at most {reference.limit:.1f})"


@dataclass(frozen=True)
class DriftReport:
    """How new data differs from training and validation.

    Args:
        samples: number of scored samples.
        groups: number of their groups.
        modalities: by modality that has a reference.
        labels: by label.
    """

    samples: int
    groups: int
    modalities: dict[str, ModalityDrift]
    labels: dict[str, LabelDrift]

    def to_json(self) -> dict[str, Any]:
        """Convert to plain data; undefined values are None."""
        plain: dict[str, Any] = _plain(asdict(self))
        return plain

    def tables(self) -> list[Table]:
        """One table of modalities and one of labels."""
        modalities: Sequence[Sequence[Any]] = [
            [
                m,
                _share(x.presence_before),
                _share(x.presence),
                _with_interval(x.unusual, x.unusual_interval),
                x.shift,
            ]
            for m, x in self.modalities.items()
        ]
        labels: Sequence[Sequence[Any]] = [
            [
                name,
                x.shift,
                _share(x.predicted_before),
                _with_interval(x.predicted, x.predicted_interval) + (" *" if x.is_shifted else ""),
                _share(x.rate_before),
                _share(x.rate),
            ]
            for name, x in self.labels.items()
        ]
        title = f"{self.samples} samples in {self.groups} groups, 95 % intervals"
        columns = ["modality", "present before", "now", "unusual (1 % before)", "shift (KS)"]
        of_labels = [
            "label",
            "score shift (KS)",
            "predicted before",
            "now (*: differs)",
            "true in training",
            "now",
        ]
        found = [Table(columns, modalities, title, 3)] if modalities else []
        return [*found, Table(of_labels, labels, "Labels", 3)]


def monitor(
    run: Predictor | str | os.PathLike[str],
    store: Store | str | os.PathLike[str],
    split: str | None = None,
    *,
    device: str | None = None,
) -> DriftReport:
    """Compare new data with the training and validation data of a run. Labels are not needed.

    Args:
        run: folder of a run, or a `Predictor`.
        store: store with the new data.
        split: split of the store; defaults to all.
        device: PyTorch device, see `carat.load`.

    Returns:
        Shifts of inputs by modality, of scores and of rates by label.

    Raises:
        RunError: there is no run, it is corrupt, or it was trained by a version that kept no reference.
        DataError: the store does not fit the run, or has no such split.

    Example:
        carat.monitor("demo-run", "demo-store", "test").labels["happy"].shift
    """
    from carat.inference.loading import load
    from carat.inference.predictor import Predictor

    predictor = run if isinstance(run, Predictor) else load(run, device=device)
    check, opened = predictor.inputs, open_store(store)
    if not check.is_known:
        raise RunError(
            f"{predictor.folder}: has no reference of its training data; an earlier version trained it"
        )
    rows, scores = [np.zeros(0, np.int64)], [np.zeros((0, len(predictor.labels)), np.float32)]
    found: dict[str, list[NDArray[np.float64]]] = {m: [np.zeros(0)] for m in check.references}
    for name in [split] if split else list(opened.manifest.splits):
        for batch in predictor.batches(opened, name):
            rows.append(batch.rows.cpu().numpy())
            scores.append(predictor.score_batch(batch)[0])
            for m, x in check.distances(batch).items():
                found[m].append(x)
    every, raw = np.concatenate(rows), np.concatenate(scores)
    groups = opened.groups[every]
    distances = {m: np.concatenate(x) for m, x in found.items()}
    return DriftReport(
        len(every),
        len(np.unique(groups)),
        {m: _modality(check.references[m], x, groups) for m, x in distances.items()},
        _labels(predictor, check, raw, opened, every),
    )


def _modality(reference: Reference, distances: NDArray[np.float64], groups: NDArray[Any]) -> ModalityDrift:
    present = np.isfinite(distances)
    unusual = np.where(present, distances > reference.limit, np.nan)
    presence = float(present.mean()) if len(present) else float("nan")
    shift = distribution_shift(distances, reference.quantiles)
    return ModalityDrift(presence, reference.presence, *mean_by_group(unusual, groups), shift)


def _labels(
    predictor: Predictor, check: InputCheck, raw: NDArray[Any], store: Store, rows: NDArray[np.int64]
) -> dict[str, LabelDrift]:
    names, groups = predictor.labels, store.groups[rows]
    above = raw > np.array(list(predictor.scale.raw_thresholds.values()))
    rates = np.full(len(names), np.nan)
    if store.label_names == names:
        true, known = split_labels(store.targets(rows))
        rates = np.where(known.any(0), true.sum(0) / np.maximum(known.sum(0), 1), np.nan)
    return {
        name: LabelDrift(
            distribution_shift(raw[:, i], check.arrays["scores/quantiles"][:, i]),
            *mean_by_group(above[:, i], groups),
            float(check.arrays["scores/predicted"][i]),
            float(rates[i]),
            float(check.arrays["labels/rate"][i]),
        )
        for i, name in enumerate(names)
    }


def _share(value: float) -> str:
    return f"{value:.1%}" if np.isfinite(value) else ""


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    return f"{_share(value)} ({' – '.join(map(_share, interval))})"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(x) for x in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
