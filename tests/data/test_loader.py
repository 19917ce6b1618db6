from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from carat.data.loader import BucketBatchSampler, check_lengths, collate, make_loader, pad, usable_rows
from carat.data.store import Store
from carat.utils.errors import DataError


def test_pad() -> None:
    padded, mask = pad([np.ones((2, 3)), np.zeros((0, 3)), np.full((5, 3), 2.0)], 3)
    assert padded.shape == (3, 5, 3)
    assert mask.sum(1).tolist() == [2, 0, 5]
    assert padded[~mask].abs().sum() == 0
    assert padded[mask].sum() == 6 + 30


def test_a_modality_that_nobody_has_keeps_one_empty_step() -> None:
    padded, mask = pad([np.zeros((0, 3))], 3)
    assert padded.shape == (1, 1, 3)
    assert not mask.any()


def test_batches_hold_the_stores_values(store: Store) -> None:
    rows = store.indices("valid")
    seen = []
    for batch in make_loader(
        store, rows, store.modalities, batch_size=7, max_length=dict.fromkeys(store.modalities, 40)
    ):
        for i, row in enumerate(batch.rows.tolist()):
            seen.append(row)
            assert batch.labels[i].tolist() == store.labels[row].tolist()
            for place, m in enumerate(store.modalities):
                found = batch.features[m][i][batch.masks[m][i]].numpy()
                np.testing.assert_array_equal(found, store.features(m, row))
                assert batch.modality_mask[i, place] == (len(store.features(m, row)) > 0)
    assert seen == rows.tolist()


def test_padding_can_be_in_sight() -> None:
    padded, mask = pad([np.ones((2, 3)), np.ones((7, 3)), np.zeros((0, 3))], 3, visible=5)
    assert padded.shape == (3, 7, 3)
    assert mask.sum(1).tolist() == [5, 7, 0]
    assert padded.sum((1, 2)).tolist() == [6, 21, 0]


def test_long_sequences_are_cut_or_refused(store: Store) -> None:
    rows = store.indices("train")
    batch = next(iter(make_loader(store, rows, ["audio"], batch_size=11, max_length={"audio": 5})))
    assert batch.features["audio"].shape[1] == 5
    with pytest.raises(DataError, match=r"audio: \d\d steps, but max_length is 5; raise method.encoder"):
        check_lengths(store, rows, ["audio"], {"audio": 5})


def test_rows_without_any_of_the_modalities_are_not_usable(store: Store) -> None:
    usable = usable_rows(store, "train", ["audio"])
    assert 0 < len(usable) < len(store.indices("train"))
    assert (store.lengths("audio")[usable] > 0).all()
    assert len(usable_rows(store, "train", store.modalities)) == len(store.indices("train"))


@given(
    number=st.integers(1, 400),
    size=st.integers(1, 23),
    seed=st.integers(0, 99),
    bucket=st.booleans(),
)
def test_every_row_comes_once_per_epoch(number: int, size: int, seed: int, bucket: bool) -> None:
    rows = np.arange(number) * 3 + 1
    lengths = np.random.default_rng(seed).integers(1, 50, number)
    batches = BucketBatchSampler(rows, size, lengths, shuffle=True, bucket=bucket, seed=seed)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        found = list(batches)
        assert len(found) == len(batches)
        assert sorted(chain.from_iterable(found)) == rows.tolist()
        epochs.append(found)
    assert epochs[0] == epochs[2]
    if number > 50 and size < number:
        assert epochs[0] != epochs[1]


def test_buckets_save_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 3000)
    padding = {}
    for bucket in (True, False):
        found = BucketBatchSampler(np.arange(3000), 16, lengths, shuffle=True, bucket=bucket)
        padding[bucket] = sum(lengths[rows].max() * len(rows) - lengths[rows].sum() for rows in found)
    assert padding[True] < padding[False] / 10


def test_place_in_the_epoch_does_not_depend_on_length() -> None:
    lengths = np.arange(600)
    batches = BucketBatchSampler(np.arange(600), 10, lengths, shuffle=True)
    place = np.zeros(600)
    for epoch in range(200):
        batches.set_epoch(epoch)
        for i, rows in enumerate(batches):
            place[rows] += i / 200
    assert abs(np.corrcoef(lengths, place)[0, 1]) < 0.15


def test_workers_and_pickling(store: Store) -> None:
    rows = store.indices("valid")
    alone, two = (
        list(make_loader(store, rows, ["text"], batch_size=13, max_length={"text": 40}, workers=workers))
        for workers in (0, 2)
    )
    assert all(torch.equal(a.features["text"], b.features["text"]) for a, b in zip(alone, two, strict=True))


def test_collate_marks_what_is_missing() -> None:
    batch = collate([{"a": np.ones((2, 3))}, {"b": np.ones((5, 7))}], {"a": 3, "b": 7})
    assert batch.modality_mask.tolist() == [[True, False], [False, True]]
    assert batch.to("cpu").masks["b"].sum(1).tolist() == [0, 5]


def test_lengths_are_rounded_up_within_the_limit() -> None:
    sequences = [np.ones((5, 3), np.float32), np.ones((0, 3), np.float32)]
    for limit, steps in ((64, 8), (7, 7), (5, 5), (0, 5)):
        features, mask = pad(sequences, 3, limit=limit, round_to=8)
        assert features.shape == (2, steps, 3)
        assert mask.sum(1).tolist() == [5, 0]
        assert features.sum() == 15
