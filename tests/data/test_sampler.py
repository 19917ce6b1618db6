from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from carat.data.sampler import BucketBatchSampler


@given(
    number=st.integers(1, 400),
    batch_size=st.integers(1, 23),
    seed=st.integers(0, 99),
    bucket=st.booleans(),
)
def test_every_row_appears_once_per_epoch(number: int, batch_size: int, seed: int, bucket: bool) -> None:
    rows = np.arange(number) * 3 + 1
    lengths = np.random.default_rng(seed).integers(1, 50, number)
    sampler = BucketBatchSampler(rows, batch_size, lengths, shuffle=True, bucket=bucket, seed=seed)
    epochs = []
    for epoch in (0, 1, 0):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert len(batches) == len(sampler)
        assert sorted(chain.from_iterable(batches)) == rows.tolist()
        epochs.append(batches)
    assert epochs[0] == epochs[2]
    if number > 50 and batch_size < number:
        assert epochs[0] != epochs[1]


def test_buckets_reduce_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 3000)
    padding = {}
    for bucket in (True, False):
        sampler = BucketBatchSampler(np.arange(3000), 16, lengths, shuffle=True, bucket=bucket)
        padding[bucket] = sum(lengths[rows].max() * len(rows) - lengths[rows].sum() for rows in sampler)
    assert padding[True] < padding[False] / 10


def test_position_in_the_epoch_does_not_depend_on_length() -> None:
    lengths = np.arange(600)
    sampler = BucketBatchSampler(np.arange(600), 10, lengths, shuffle=True)
    mean_position = np.zeros(600)
    for epoch in range(200):
        sampler.set_epoch(epoch)
        for i, rows in enumerate(sampler):
            mean_position[rows] += i / 200
    assert abs(np.corrcoef(lengths, mean_position)[0, 1]) < 0.15


def test_resuming_skips_batches_of_one_epoch() -> None:
    sampler = BucketBatchSampler(np.arange(31), 7, np.ones(31, dtype=int), shuffle=True)
    epochs = []
    for epoch in (1, 2):
        sampler.set_epoch(epoch)
        epochs.append(list(sampler))
    sampler.resume(1, 2)
    assert list(sampler) == epochs[0][2:]
    sampler.set_epoch(2)
    assert list(sampler) == epochs[1]
