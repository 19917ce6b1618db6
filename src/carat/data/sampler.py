"""Batch sampler that groups sequences of similar length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

SORT_WINDOW = 50
"""Batches among which samples are sorted by length."""


class BucketBatchSampler(Sampler[list[int]]):
    """Batches of store rows, in order or shuffled each epoch. Every row appears once per epoch.

    With `bucket`, rows are shuffled, sorted by length within windows of `SORT_WINDOW` batches and split into
    batches, which are then shuffled: the position of a row in the epoch does not depend on its length. The
    incomplete batch has a random position in the last window.

    Args:
        rows: (n,) store rows.
        batch_size: rows per batch.
        lengths: (n,) time steps of each row, summed over modalities; used by `bucket`.
        shuffle: draw a new order each epoch.
        bucket: batch rows of similar length together; no effect without `shuffle`.
        seed: the order depends on the seed and the epoch alone.
    """

    def __init__(
        self,
        rows: NDArray[np.int64],
        batch_size: int,
        lengths: NDArray[np.int64],
        *,
        shuffle: bool,
        bucket: bool = True,
        seed: int = 0,
    ) -> None:
        self.rows, self.batch_size, self.lengths = rows, batch_size, lengths
        self.shuffle, self.bucket, self.seed, self.epoch = shuffle, bucket, seed, 0
        self._resumed_epoch, self._batches_done = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which determines the order of the next iteration."""
        self.epoch = epoch

    def resume(self, epoch: int, batches_done: int) -> None:
        """Skip the first batches of an epoch; other epochs are complete."""
        self.epoch, self._resumed_epoch, self._batches_done = epoch, epoch, batches_done

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        order = np.arange(len(self.rows))
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.shuffle:
            order = rng.permutation(order)
        if self.shuffle and self.bucket:
            window = self.batch_size * SORT_WINDOW
            parts = [order[i : i + window] for i in range(0, len(order), window)]
            order = np.concatenate([part[np.argsort(self.lengths[part], kind="stable")] for part in parts])
        sizes = np.full(len(self), self.batch_size)
        sizes[-1] -= sizes.sum() - len(order)
        if self.shuffle:
            last_window = (len(sizes) - 1) // SORT_WINDOW * SORT_WINDOW
            sizes[last_window:] = rng.permutation(sizes[last_window:])
        batches = np.split(order, sizes.cumsum()[:-1])
        if self.shuffle:
            batches = [batches[i] for i in rng.permutation(len(batches))]
        for batch in batches[self._batches_done if self.epoch == self._resumed_epoch else 0 :]:
            yield self.rows[batch].tolist()
