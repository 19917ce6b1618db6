from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from carat.data.loader import check_lengths, make_loader, truncation_notes, usable_rows, without_worker
from carat.data.store import Store, open_store
from carat.data.store.manifest import Tokens
from carat.data.store.writer import StoreWriter
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


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_refused(
    value: float, workers: int, store: Store, tmp_path: Path
) -> None:
    shutil.copytree(store.folder, tmp_path / "s")
    row = int(np.flatnonzero(store.lengths("text"))[5])
    features = np.load(tmp_path / "s" / "features" / "text.npy")
    features[store.array("features/text_offsets.npy")[row], 2] = value
    np.save(tmp_path / "s" / "features" / "text.npy", features)
    rows = np.arange(row - 3, row + 3)
    loader = make_loader(
        open_store(tmp_path / "s"), rows, ["text"], batch_size=6, max_length={"text": 40}, workers=workers
    )
    with pytest.raises(DataError) as caught:
        list(loader)
    assert str(without_worker(caught.value)) == (
        f"{tmp_path / 's'}: sample '{store.ids[row]}', text: inf or NaN; see `carat data check` and "
        "build the store again"
    )


def test_numbers_that_are_no_tokens_are_refused(tmp_path: Path) -> None:
    tokens = Tokens(tokenizer="x", vocabulary=7, longest=5)
    with StoreWriter(
        tmp_path / "s", "x", ["a"], {"text": "y"}, ["test"], encoder_inputs={"text": tokens}
    ) as writer:
        for i in range(3):
            writer.append(f"s{i}", "test", [1], {"text": np.full((2, 1), i)})
    ids = np.load(tmp_path / "s" / "features" / "text.npy")
    ids[3] = 7
    np.save(tmp_path / "s" / "features" / "text.npy", ids)
    loader = make_loader(
        open_store(tmp_path / "s"), np.arange(3), ["text"], batch_size=3, max_length={"text": 5}
    )
    with pytest.raises(DataError, match="sample 's1', text: expected token IDs from 0 to 6; see"):
        list(loader)
