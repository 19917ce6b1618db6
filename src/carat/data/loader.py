"""From store to padded batches with validity masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from carat.data.store import Store
from carat.utils.errors import DataError


@dataclass
class Batch:
    """Padded sequences by modality; an absent modality is a row without valid steps."""

    features: dict[str, Tensor]
    """(B, T_m, d_m) float32, or int64 for tokens; zeros where not valid."""
    masks: dict[str, Tensor]
    """(B, T_m) bool, valid = True."""
    labels: Tensor
    """(B, L) float32, 0 or 1."""
    rows: Tensor
    """(B,) rows of the store."""
    total: int = 0
    """Samples of the whole batch, where several processes have a share each; else 0."""

    @property
    def modality_mask(self) -> Tensor:
        """(B, M) bool, which modalities each sample has."""
        return torch.stack([mask.any(1) for mask in self.masks.values()], dim=1)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return Batch(
            {m: x.to(device, non_blocking=non_blocking) for m, x in self.features.items()},
            {m: x.to(device, non_blocking=non_blocking) for m, x in self.masks.items()},
            self.labels.to(device, non_blocking=non_blocking),
            self.rows.to(device, non_blocking=non_blocking),
            self.total,
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory."""
        return Batch(
            {m: x.pin_memory() for m, x in self.features.items()},
            {m: x.pin_memory() for m, x in self.masks.items()},
            self.labels.pin_memory(),
            self.rows.pin_memory(),
            self.total,
        )


def pad(
    sequences: Sequence[NDArray[Any]],
    width: int,
    visible: int = 0,
    limit: int = 0,
    round_to: int = 1,
    steps: int = 1,
) -> tuple[Tensor, Tensor]:
    """Sequences (T_i, d) → padded (B, T, d) and mask (B, T), T the longest, `steps` at least.

    Token ids stay integers. Padding is valid up to the step `visible`, but for empty sequences. T is rounded
    up to a multiple of `round_to`, as long as that is no more than `limit`.
    """
    longest = max(steps, visible, *(len(x) for x in sequences)) if sequences else steps
    longest = max(longest, min(limit, -(-longest // round_to) * round_to))
    tokens = any(x.dtype.kind == "i" for x in sequences)
    padded = np.zeros((len(sequences), longest, width), dtype=np.int64 if tokens else np.float32)
    mask = np.zeros((len(sequences), longest), dtype=bool)
    for i, x in enumerate(sequences):
        padded[i, : len(x)] = x
        mask[i, : max(len(x), visible) if len(x) else 0] = True
    return torch.from_numpy(padded), torch.from_numpy(mask)


class StoreDataset(Dataset[Batch]):
    """Batches by lists of store rows.

    Args:
        store: where from.
        modalities: which, in this order.
        longest: time steps by modality after which sequences are cut.
        visible: see `pad`; by modality.
        round_to: see `pad`; at most `longest`.
        share: by the number of a batch's samples, which of them are wanted; all when None. Sequences are
            padded as if all were.
    """

    def __init__(
        self,
        store: Store,
        modalities: Sequence[str],
        longest: Mapping[str, int],
        visible: Mapping[str, int],
        round_to: int = 1,
        share: Callable[[int], list[int]] | None = None,
    ) -> None:
        self.store, self.modalities, self.share = store, list(modalities), share
        self.longest, self.visible, self.round_to = dict(longest), dict(visible), round_to

    def __getitem__(self, rows: Sequence[int]) -> Batch:
        features, masks = {}, {}
        everyone = list(rows)
        if self.share is not None:
            rows = [everyone[i] for i in self.share(len(everyone))]
        for m in self.modalities:
            sequences = [self.store.features(m, row)[: self.longest[m]] for row in rows]
            width = self.store.manifest.modalities[m].width
            steps = 1 if self.share is None else max(1, *self.store.lengths(m)[everyone])
            features[m], masks[m] = pad(
                sequences,
                width,
                self.visible.get(m, 0),
                self.longest[m],
                self.round_to,
                min(steps, self.longest[m]),
            )
        labels = torch.from_numpy(self.store.labels[rows].astype(np.float32))
        total = len(everyone) if self.share is not None else 0
        return Batch(features, masks, labels, torch.tensor(rows), total)


class BucketBatchSampler(Sampler[list[int]]):
    """Lists of rows: in order, or drawn anew each epoch with similar lengths together.

    Every row comes once per epoch. With `bucket`, rows are drawn at random, sorted by length within
    stretches of 50 batches and cut into batches, which come in random order: a row's chance of any place in
    the epoch does not depend on its length. The one short batch lies anywhere in its stretch.

    Args:
        rows: which rows of the store.
        size: batch size.
        lengths: time steps of each row, over all modalities, for `bucket`.
        shuffle: draw a new order in each epoch.
        bucket: keep similar lengths together.
        seed: with the epoch, fixes the order.
    """

    STRETCH = 50

    def __init__(
        self,
        rows: NDArray[np.int64],
        size: int,
        lengths: NDArray[np.int64],
        *,
        shuffle: bool,
        bucket: bool = True,
        seed: int = 0,
    ) -> None:
        self.rows, self.size, self.lengths = rows, size, lengths
        self.shuffle, self.bucket, self.seed, self.epoch = shuffle, bucket, seed, 0
        self._done = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def go_on(self, epoch: int, done: int) -> None:
        """Pass through the rest of an epoch, of which so many batches are done; later epochs are whole."""
        self.epoch, self._done = epoch, (epoch, done)

    def __len__(self) -> int:
        return -(-len(self.rows) // self.size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(len(self.rows))
        random = np.random.default_rng((self.seed, self.epoch))
        if self.shuffle:
            order = random.permutation(order)
        if self.shuffle and self.bucket:
            stretch = self.size * self.STRETCH
            parts = [order[i : i + stretch] for i in range(0, len(order), stretch)]
            order = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
        sizes = np.full(len(self), self.size)
        sizes[-1] -= sizes.sum() - len(order)
        if self.shuffle:
            last = (len(sizes) - 1) // self.STRETCH * self.STRETCH
            sizes[last:] = random.permutation(sizes[last:])
        batches = np.split(order, sizes.cumsum()[:-1])
        if self.shuffle:
            batches = [batches[i] for i in random.permutation(len(batches))]
        epoch, done = self._done
        for batch in batches[done if epoch == self.epoch else 0 :]:
            yield self.rows[batch].tolist()


class ResumableLoader(DataLoader[Batch]):
    """A loader that tells Lightning that an epoch may be gone on with, see `Batches.go_on`."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the training knows where it is."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing."""


def hide(batch: Batch, seen: NDArray[np.bool_]) -> Batch:
    """The batch with fewer modalities; samples that are left without any are left out.

    Args:
        batch: padded sequences.
        seen: (rows of the store, M), which modalities may be seen, in the order of the batch.
    """
    kept = torch.from_numpy(seen[batch.rows.cpu().numpy()]).to(batch.rows.device)
    masks = {m: mask & kept[:, [place]] for place, (m, mask) in enumerate(batch.masks.items())}
    hidden = Batch(batch.features, masks, batch.labels, batch.rows)
    left = hidden.modality_mask.any(1)
    return Batch(
        {m: x[left] for m, x in hidden.features.items()},
        {m: mask[left] for m, mask in hidden.masks.items()},
        hidden.labels[left],
        hidden.rows[left],
    )


def usable_rows(store: Store, split: str, modalities: Sequence[str]) -> NDArray[np.int64]:
    """Rows of a split that have one of the modalities at least; the others cannot be scored.

    Raises:
        DataError: unknown split, or none of its samples has any of the modalities.
    """
    rows = store.indices(split)
    usable = rows[np.any([store.lengths(m)[rows] > 0 for m in modalities], axis=0)]
    if not len(usable):
        raise DataError(f"{store.folder}: no sample of split '{split}' has any of: {', '.join(modalities)}")
    return usable


def check_lengths(
    store: Store, rows: NDArray[np.int64], modalities: Sequence[str], max_length: Mapping[str, int]
) -> None:
    """Refuse rows that are longer than a method can read.

    Raises:
        DataError: names the sample, what was found and what to do.
    """
    for m in modalities:
        steps = store.lengths(m)[rows]
        if steps.max() > max_length[m]:
            sample = store.ids[rows[int(steps.argmax())]]
            raise DataError(
                f"{store.folder}: sample '{sample}', {m}: {steps.max()} steps, but max_length is "
                f"{max_length[m]}; raise method.encoder.max_length or set data.truncation to true"
            )


def cut_short(
    store: Store, split: str, modalities: Sequence[str], max_length: Mapping[str, int]
) -> list[str]:
    """A sentence on each modality that is longer than a method can read in some samples of a split."""
    rows = store.indices(split)
    long = {m: int((store.lengths(m)[rows] > max_length[m]).sum()) for m in modalities}
    return [
        f"{m} of {count} of the {len(rows)} samples of {split} is cut at {max_length[m]} steps"
        for m, count in long.items()
        if count
    ]


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
    share: Callable[[int], list[int]] | None = None,
) -> ResumableLoader:
    """Batches of these rows, sequences cut at `max_length` and padded in sight up to `pad_to` (see `pad`).

    With workers, each prepares four batches in advance. `Batches` says in which order they come, and
    `StoreDataset` what a `share` is.
    """
    lengths = np.sum([np.minimum(store.lengths(m)[rows], max_length[m]) for m in modalities], axis=0)
    sampler = BucketBatchSampler(rows, batch_size, lengths, shuffle=shuffle, bucket=bucket, seed=seed)
    return ResumableLoader(
        StoreDataset(store, modalities, max_length, pad_to or {}, round_to, share),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        pin_memory=pin_memory,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )


def collate(
    samples: Sequence[Mapping[str, NDArray[Any]]],
    widths: Mapping[str, int],
    pad_to: Mapping[str, int] | None = None,
) -> Batch:
    """A batch without labels from (T, d) arrays by modality; absent modalities are left out of a sample."""
    visible = pad_to or {}
    features, masks = {}, {}
    for m, width in widths.items():
        nothing = np.zeros((0, width), dtype=np.float32)
        features[m], masks[m] = pad([sample.get(m, nothing) for sample in samples], width, visible.get(m, 0))
    return Batch(features, masks, torch.zeros(len(samples), 0), torch.arange(len(samples)))
