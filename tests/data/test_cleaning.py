"""Cleaning of features: what is padding, what is absent, and what training statistics are learnt from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from carat.data.cleaning import Cleaning, FeatureCleaner
from carat.data.store.transform import Padding, Transform
from carat.utils.errors import DataError

NAN, INF = np.nan, np.inf


def clean(array: Any, **rules: Any) -> Any:
    values = np.asarray(array, dtype=float)
    return Transform(width=values.shape[1], **rules).clean(values, "x")


@pytest.mark.parametrize(
    ("padding", "expected"),
    [("strip", [[1], [0], [2]]), ("keep", [[0], [1], [0], [2], [0]]), ("none", [[0], [1], [0], [2], [0]])],
)
def test_steps_of_zeros_at_the_ends(padding: Padding, expected: list[Any]) -> None:
    cleaned = clean([[0], [1], [0], [2], [0]], padding=padding)
    assert cleaned.features.tolist() == expected
    assert cleaned.stripped == 5 - len(expected)


@pytest.mark.parametrize(
    ("array", "padding", "absence"),
    [
        ([[0, 0], [0, 0]], "strip", "zeros"),
        ([[0, 0], [0, 0]], "keep", "zeros"),
        ([[0, 0], [0, 0]], "none", ""),
        ([[NAN, INF], [-INF, NAN]], "strip", "inf or NaN"),
        ([[NAN, INF], [-INF, NAN]], "none", "inf or NaN"),
        ([[NAN, 0], [0, NAN]], "strip", "zeros"),
        ([[NAN, 0], [0, 1]], "strip", ""),
    ],
)
def test_a_modality_without_values_is_absent(array: list[Any], padding: Padding, absence: str) -> None:
    cleaned = clean(array, padding=padding)
    assert cleaned.absence == absence
    assert (len(cleaned.features) == 0) == bool(absence)


def test_steps_without_a_number_are_padding_and_others_become_zero() -> None:
    cleaned = clean([[NAN, NAN], [1, NAN], [NAN, NAN], [2, 3], [NAN, 0]], padding="strip")
    assert cleaned.features.tolist() == [[1, 0], [0, 0], [2, 3]]
    assert (cleaned.stripped, cleaned.replaced) == (2, 3)


def test_dropped_columns_do_not_count_as_content() -> None:
    """A time stamp in column 0 does not make padding a step."""
    cleaned = clean([[1, 0], [2, 5], [3, 0]], drop_columns=[0], padding="strip")
    assert cleaned.features.tolist() == [[5]]


@given(
    npst.arrays(
        np.float64,
        st.tuples(st.integers(0, 5), st.just(3)),
        elements=st.sampled_from([0.0, 1.0, -2.5, NAN, INF, -INF]),
    ),
    st.sampled_from(["strip", "keep", "none"]),
)
def test_cleaning_twice_changes_nothing(array: NDArray[Any], padding: Padding) -> None:
    transform = Transform(width=3, padding=padding)
    once = transform.clean(array, "x").features
    assert np.isfinite(once).all()
    twice = transform.clean(once, "x")
    assert np.array_equal(twice.features, once)
    assert not twice.stripped
    assert not twice.replaced


def test_statistics_are_not_learnt_from_padding() -> None:
    cleaner = FeatureCleaner("audio", Cleaning(standardise=True))
    padded = np.array([[0.0, 0], [1, 10], [3, NAN], [0, 0], [0, 0]])
    cleaner.fit([("a", padded), ("b", np.zeros((4, 2))), ("c", None)])
    assert cleaner.transform is not None
    assert cleaner.transform.mean == [2, 10]
    assert cleaner.transform.deviation == [1, 1]
    values = cleaner.clean(padded, "a")
    assert values is not None
    assert values.tolist() == [[-1, 0], [1, 0]]


def test_precision_of_the_store() -> None:
    cleaned = Transform(width=1, dtype="float16").clean(np.array([[0.1], [70_000.0]]), "x")
    assert cleaned.features[0, 0] == np.float16(0.1)
    assert np.isinf(cleaned.features[1, 0])  # refused by the store and by prediction


def test_changes_are_counted_and_said() -> None:
    cleaner = FeatureCleaner("audio", Cleaning(drop_columns=[2]))
    for array in ([[0, 0, 9], [1, NAN, 9], [2, 3, 9]], [[0, 0, 9]], [[NAN, INF, 9]]):
        cleaner.clean(np.array(array, dtype=float), "x")
    cleaner.clean(None, "x")
    cleaner.clean(np.zeros((0, 3)), "x")
    assert cleaner.samples == 1
    assert cleaner.report() == [
        "columns dropped: 2",
        "1 steps of zeros before or after sequences stripped",
        "absent from 1 samples: they are empty",
        "absent from 1 samples: all values are inf or NaN",
        "absent from 1 samples: they have no features",
        "absent from 1 samples: all values are zero",
        "1 values that were inf or NaN set to 0",
    ]


def test_what_is_refused() -> None:
    strict = FeatureCleaner("audio", Cleaning(non_finite="error", drop_columns=[0]))
    with pytest.raises(DataError, match="clip: inf or NaN in column 1"):
        strict.clean(np.array([[NAN, 1, NAN]]), "clip")
    with pytest.raises(DataError, match="clip: inf or NaN in column 0"):
        strict.clean(np.array([[1, NAN, NAN]]), "clip")
    cleaner = FeatureCleaner("audio", Cleaning())
    cleaner.clean(np.ones((2, 3)), "clip")
    with pytest.raises(DataError, match="other: width 2, expected 3"):
        cleaner.clean(np.ones((2, 2)), "other")
    for wrong in (np.ones(3), np.ones((1, 2, 3)), np.array([["a", "b", "c"]]), np.array([[1j, 2, 3]])):
        with pytest.raises(DataError, match=r"expected a numeric array \(T, d\)"):
            cleaner.clean(wrong, "clip")
    with pytest.raises(DataError, match="no sample of the split 'train' has it"):
        FeatureCleaner("audio", Cleaning(standardise=True)).fit([("a", np.zeros((2, 2))), ("b", None)])
