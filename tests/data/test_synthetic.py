from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.data.summary import shared_groups, summarize
from carat.data.synthetic import LABELS, LENGTHS, WIDTHS, make_synthetic
from carat.utils.errors import DataError


def test_the_same_seed_gives_the_same_store(tmp_path: Path) -> None:
    first, second, other = (
        make_synthetic(tmp_path / str(i), samples=101, seed=seed).manifest.fingerprint
        for i, seed in enumerate((5, 5, 6))
    )
    assert first == second != other


def test_modalities_differ_in_length_and_may_be_missing(store: Store) -> None:
    for m, (low, high) in LENGTHS.items():
        lengths = store.lengths(m)
        assert set(np.unique(lengths)) <= {0, *range(low, high + 1)}
        assert 0.1 < (lengths == 0).mean() < 0.3  # the fixture asks for 0.2
    assert (np.sum([store.lengths(m) > 0 for m in WIDTHS], axis=0) > 0).all()


def test_groups_do_not_cross_splits(tmp_path: Path) -> None:
    store = make_synthetic(tmp_path / "s", samples=1003)
    groups = [set(store.groups[store.indices(split)].tolist()) for split in store.manifest.splits]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 251
    assert store.manifest.splits["train"] / 1003 == pytest.approx(0.7, abs=0.01)


def test_labels_are_correlated(tmp_path: Path) -> None:
    labels = np.asarray(make_synthetic(tmp_path / "s", samples=2000).labels)
    correlation = np.corrcoef(labels.T)
    index = {name: i for i, name in enumerate(LABELS)}
    assert correlation[index["anger"], index["disgust"]] > 0.2
    assert correlation[index["happy"], index["sad"]] < -0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 99}, "samples must be at least 100, found 99"),
        ({"missing": 1.0}, r"missing must be in \[0, 1\), found 1.0"),
        ({"missing": -0.1}, r"missing must be in \[0, 1\), found -0.1"),
        ({"seed": -1}, "seed must not be negative, found -1"),
    ],
)
def test_invalid_arguments(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        make_synthetic(tmp_path / "s", **options)
    assert list(tmp_path.iterdir()) == []


def test_groups_in_two_splits_are_counted(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "s", ["a"], {"text": "x"}, ["train", "valid"]) as writer:
        for i, (split, group) in enumerate([("train", "g"), ("train", "h"), ("valid", "g"), ("valid", "i")]):
            writer.append(str(i), split, [1], {"text": np.ones((1, 2))}, group=group)
    assert shared_groups(open_store(tmp_path / "s")) == ["g"]


def test_summary(store: Store) -> None:
    summary = summarize(store)
    labels = np.asarray(store.labels)
    assert summary["samples"] == 211
    assert summary["groups"] == 53
    assert summary["shared_groups"] == 0
    assert sum(summary["splits"].values()) == 211
    positives = [sum(x["positives"][name] for x in summary["labels"].values()) for name in LABELS]
    assert positives == labels.sum(0).tolist()
    both = int((labels[:, 0] & labels[:, 1]).sum())
    assert summary["co_occurrence"]["happy"]["sad"] == summary["co_occurrence"]["sad"]["happy"] == both
    valid = labels[store.indices("valid")]
    assert summary["labels"]["valid"]["cardinality"] == pytest.approx(valid.sum(1).mean())
    assert summary["labels"]["valid"]["without_label"] == pytest.approx((valid.sum(1) == 0).mean())
    for m in WIDTHS:
        described = summary["modalities"][m]
        assert sum(described["missing"].values()) == (store.lengths(m) == 0).sum()
        assert described["steps"]["longest"] == store.lengths(m).max()
