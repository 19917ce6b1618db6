from __future__ import annotations

import numpy as np
import pytest
import torch

from carat.data.loader import check_lengths, make_loader, truncation_notes, usable_rows
from carat.data.store import Store
from carat.utils.errors import DataError


def test_batches_hold_the_values_of_the_store(store: Store) -> None:
    rows = store.indices("valid")
    loaded = []
    for batch in make_loader(
        store, rows, store.modalities, batch_size=7, max_length=dict.fromkeys(store.modalities, 40)
    ):
        for i, row in enumerate(batch.rows.tolist()):
            loaded.append(row)
            assert batch.labels[i].tolist() == store.labels[row].tolist()
            for j, m in enumerate(store.modalities):
                features = batch.features[m][i][batch.masks[m][i]].numpy()
                np.testing.assert_array_equal(features, store.features(m, row))
                assert batch.modality_mask[i, j] == (len(store.features(m, row)) > 0)
    assert loaded == rows.tolist()


def test_long_sequences_are_truncated_or_refused(store: Store) -> None:
    rows = store.indices("train")
    batch = next(iter(make_loader(store, rows, ["audio"], batch_size=11, max_length={"audio": 5})))
    assert batch.features["audio"].shape[1] == 5
    with pytest.raises(DataError, match=r"audio: \d\d steps, but max_length is 5; raise method.encoder"):
        check_lengths(store, rows, ["audio"], {"audio": 5})


def test_truncated_sequences_are_counted(store: Store) -> None:
    steps = store.lengths("text")[store.indices("train")]
    notes = truncation_notes(store, "train", ["text", "audio"], {"text": 11, "audio": 40})
    count = (steps > 11).sum()
    assert notes == [f"text: {count} of {len(steps)} samples of split 'train' truncated to 11 steps"]


def test_rows_without_any_of_the_modalities_are_not_usable(store: Store) -> None:
    usable = usable_rows(store, "train", ["audio"])
    assert 0 < len(usable) < len(store.indices("train"))
    assert (store.lengths("audio")[usable] > 0).all()
    assert len(usable_rows(store, "train", store.modalities)) == len(store.indices("train"))


def test_workers_return_the_same_batches(store: Store) -> None:
    rows = store.indices("valid")
    in_process, with_workers = (
        list(make_loader(store, rows, ["text"], batch_size=13, max_length={"text": 40}, workers=workers))
        for workers in (0, 2)
    )
    for a, b in zip(in_process, with_workers, strict=True):
        assert torch.equal(a.features["text"], b.features["text"])
