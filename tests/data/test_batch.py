from __future__ import annotations

import numpy as np

from carat.data.batch import collate, mask_modalities, pad


def test_pad() -> None:
    padded, mask = pad([np.ones((2, 3)), np.zeros((0, 3)), np.full((5, 3), 2.0)], 3)
    assert padded.shape == (3, 5, 3)
    assert mask.sum(1).tolist() == [2, 0, 5]
    assert padded[~mask].abs().sum() == 0
    assert padded[mask].sum() == 6 + 30


def test_modality_absent_from_all_samples_has_one_masked_step() -> None:
    padded, mask = pad([np.zeros((0, 3))], 3)
    assert padded.shape == (1, 1, 3)
    assert not mask.any()


def test_unmasked_padding() -> None:
    padded, mask = pad([np.ones((2, 3)), np.ones((7, 3)), np.zeros((0, 3))], 3, pad_to=5)
    assert padded.shape == (3, 7, 3)
    assert mask.sum(1).tolist() == [5, 7, 0]
    assert padded.sum((1, 2)).tolist() == [6, 21, 0]


def test_lengths_are_rounded_up_to_at_most_max_length() -> None:
    sequences = [np.ones((5, 3), np.float32), np.ones((0, 3), np.float32)]
    for max_length, steps in ((64, 8), (7, 7), (5, 5), (0, 5)):
        features, mask = pad(sequences, 3, max_length=max_length, round_to=8)
        assert features.shape == (2, steps, 3)
        assert mask.sum(1).tolist() == [5, 0]
        assert features.sum() == 15


def test_collate_masks_missing_modalities() -> None:
    batch = collate([{"a": np.ones((2, 3))}, {"b": np.ones((5, 7))}], {"a": 3, "b": 7})
    assert batch.modality_mask.tolist() == [[True, False], [False, True]]
    assert batch.to("cpu").masks["b"].sum(1).tolist() == [0, 5]


def test_mask_modalities_removes_samples_without_any_left() -> None:
    batch = collate([{"a": np.ones((2, 3)), "b": np.ones((5, 7))}, {"b": np.ones((1, 7))}], {"a": 3, "b": 7})
    masked = mask_modalities(batch, np.array([[True, False], [True, False]]))
    assert masked.rows.tolist() == [0]
    assert masked.modality_mask.tolist() == [[True, False]]
    assert masked.features["b"].shape == (1, 5, 7)
    assert mask_modalities(batch, np.ones((2, 2), dtype=bool)).modality_mask.tolist() == [
        [True, True],
        [False, True],
    ]
