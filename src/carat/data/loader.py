"""Data loaders over the rows of a store."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from carat.data.batch import Batch, pad
from carat.data.sampler import BucketBatchSampler, Quotas
from carat.data.store import Store
from carat.utils.errors import CaratError, DataError


class StoreDataset(Dataset[Batch]):
    """Dataset whose items are batches: indexed by a list of store rows, it returns a `Batch`.

    Args:
        store: an open store.
        modalities: modalities to read, in the order of the M axis.
        max_length: time steps by modality; longer sequences are truncated.
        pad_to: see `pad`; by modality.
        round_to: see `pad`; padded lengths are rounded up to at most `max_length`.
        shard: maps a batch size to the positions in the batch that this process loads; None loads all.
            Sequences are padded to the length that the whole batch needs.
        targets: (rows of the store, L) in [0, 1], NaN where unknown: targets other than the labels.
    """

    def __init__(
        self,
        store: Store,
        modalities: Sequence[str],
        max_length: Mapping[str, int],
        pad_to: Mapping[str, int],
        round_to: int = 1,
        shard: Callable[[int], list[int]] | None = None,
        targets: NDArray[np.float32] | None = None,
    ) -> None:
        self.store, self.modalities, self.shard, self.targets = store, list(modalities), shard, targets
        self.max_length, self.pad_to, self.round_to = dict(max_length), dict(pad_to), round_to

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        batch_rows = list(rows)
        rows = batch_rows if self.shard is None else [batch_rows[i] for i in self.shard(len(batch_rows))]
        features, masks = {}, {}
        for m in self.modalities:
            longest = 1 if self.shard is None else max(1, *self.store.lengths(m)[batch_rows])
            sequences = [self.store.features(m, row)[: self.max_length[m]] for row in rows]
            features[m], masks[m] = pad(
                sequences,
                self.store.manifest.modalities[m].width,
                pad_to=self.pad_to.get(m, 0),
                min_length=min(longest, self.max_length[m]),
                max_length=self.max_length[m],
                round_to=self.round_to,
            )
            self._check(m, rows, sequences, features[m])
        labels = torch.from_numpy(self.store.targets(rows))
        targets = None if self.targets is None else torch.from_numpy(self.targets[rows])
        total = len(batch_rows) if self.shard is not None else 0
        return Batch(features, masks, labels, torch.tensor(rows), total, targets)

    def _check(
        self, modality: str, rows: Sequence[int], sequences: Sequence[NDArray[Any]], padded: torch.Tensor
    ) -> None:
        """Check the steps of a batch, which nothing else does; checksums are only compared on request.

        Raises:
            DataError: inf, NaN, or numbers that are no tokens.
        """
        info = self.store.manifest.modalities[modality]
        if info.tokens is None and (not padded.numel() or torch.stack(padded.aminmax()).isfinite().all()):
            return
        for row, steps in zip(rows, sequences, strict=True):
            if problem := info.problem_of(steps):
                raise DataError(
                    f"{self.store.folder}: sample '{self.store.ids[row]}', {modality}: {problem}; see `carat "
                    "data check` and build the store again"
                )


class ResumableLoader(DataLoader[Batch]):
    """Data loader that Lightning accepts as resumable; see `BucketBatchSampler.resume` for how it resumes."""

    def state_dict(self) -> dict[str, Any]:
        """Return an empty state: the position is set on the sampler."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Do nothing: the position is set on the sampler."""


def without_worker(error: CaratError) -> CaratError:
    """Return the error that a data loader's worker raised, without the traceback that PyTorch adds to it."""
    lines = str(error.args[0]).strip().splitlines() if error.args else []
    if not lines or not re.match(r"Caught \w+ in DataLoader worker process", lines[0]):
        return error
    return type(error)(lines[-1].partition(": ")[2])


def make_loader(
    store: Store,
    rows: NDArray[np.int64],
    modalities: Sequence[str],
    *,
    batch_size: int,
    max_length: Mapping[str, int],
    pad_to: Mapping[str, int] | None = None,
    shuffle: bool = False,
    bucket: bool = True,
    seed: int = 0,
    workers: int = 0,
    pin_memory: bool = False,
    round_to: int = 1,
    shard: Callable[[int], list[int]] | None = None,
    quotas: Quotas | None = None,
    targets: NDArray[np.float32] | None = None,
) -> ResumableLoader:
    """Make a data loader of padded batches.

    Args:
        store: an open store.
        rows: (n,) store rows to load.
        modalities: modalities to read, in the order of the M axis.
        batch_size: samples per batch, over all processes.
        max_length: time steps by modality; longer sequences are truncated.
        pad_to: see `pad`; by modality.
        shuffle: see `BucketBatchSampler`.
        bucket: see `BucketBatchSampler`.
        seed: see `BucketBatchSampler`.
        workers: worker processes, each of which prefetches four batches; 0 loads in this process.
        pin_memory: return batches in pinned memory.
        round_to: see `pad`.
        shard: see `StoreDataset`.
        quotas: see `BucketBatchSampler`.
        targets: see `StoreDataset`.
    """
    lengths = np.sum([np.minimum(store.lengths(m)[rows], max_length[m]) for m in modalities], axis=0)
    sampler = BucketBatchSampler(
        rows, batch_size, lengths, shuffle=shuffle, bucket=bucket, seed=seed, quotas=quotas
    )
    return ResumableLoader(
        StoreDataset(store, modalities, max_length, pad_to or {}, round_to, shard, targets),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


def usable_rows(store: Store, split: str, modalities: Sequence[str]) -> NDArray[np.int64]:
    """Return the rows of a split that have at least one of the modalities.

    Raises:
        DataError: unknown split, or no sample of it has any of the modalities.
    """
    rows = store.indices(split)
    usable = rows[np.any([store.lengths(m)[rows] > 0 for m in modalities], axis=0)]
    if not len(usable):
        raise DataError(f"{store.folder}: no sample of split '{split}' has any of: {', '.join(modalities)}")
    return usable


def check_lengths(
    store: Store, rows: NDArray[np.int64], modalities: Sequence[str], max_length: Mapping[str, int]
) -> None:
    """Check that no sequence is longer than the model accepts.

    Raises:
        DataError: a sequence is longer than `max_length`.
    """
    for m in modalities:
        steps = store.lengths(m)[rows]
        if steps.max() > max_length[m]:
            sample = store.ids[rows[int(steps.argmax())]]
            raise DataError(
                f"{store.folder}: sample '{sample}', {m}: {steps.max()} steps, but max_length is "
                f"{max_length[m]}; raise method.encoder.max_length or set data.truncation to true"
            )


def truncation_notes(
    store: Store, split: str, modalities: Sequence[str], max_length: Mapping[str, int]
) -> list[str]:
    """Describe how many sequences of a split are truncated: one line per modality that has any."""
    rows = store.indices(split)
    truncated = {m: int((store.lengths(m)[rows] > max_length[m]).sum()) for m in modalities}
    return [
        f"{m}: {count} of {len(rows)} samples of split '{split}' truncated to {max_length[m]} steps"
        for m, count in truncated.items()
        if count
    ]
