"""Batch sampler that groups sequences of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

SORT_WINDOW = 50
"""Batches among which samples are sorted by length."""


@dataclass(frozen=True)
class Quotas:
    """Number of samples of each corpus in an epoch.

    Args:
        codes: (n,) corpus of each row, from 0.
        counts: number of samples by corpus; a corpus of which there are fewer is repeated.
    """

    codes: NDArray[np.int64]
    counts: Sequence[int]

    def draw(self, rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw the positions of the rows of an epoch, ascending by corpus.

        Every sample of a corpus is drawn as often as any other, give or take one.
        """
        drawn = []
        for code, count in enumerate(self.counts):
            positions = np.flatnonzero(self.codes == code)
            whole, rest = divmod(count, max(len(positions), 1))
            drawn += [positions] * whole + [rng.permutation(positions)[:rest]]
        return np.concatenate(drawn)


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
        quotas: samples of each corpus in an epoch, drawn anew for each; by default every row appears once.
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
        quotas: Quotas | None = None,
    ) -> None:
        self.quotas = quotas
        self.size = len(rows) if quotas is None else sum(quotas.counts)
        """Number of samples of an epoch."""
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
        return -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = np.arange(len(self.rows)) if self.quotas is None else self.quotas.draw(rng)
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
