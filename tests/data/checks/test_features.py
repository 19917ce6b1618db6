from __future__ import annotations

import numpy as np
import pytest

from carat.data.checks.features import MAX_SUBSET, auroc, compute_statistics, shift_between, spearman
from carat.data.store import Store


def test_statistics_do_not_depend_on_the_block_size(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    one_block = compute_statistics(store, "audio")
    monkeypatch.setattr("carat.data.checks.features.BLOCK", 1)
    many_blocks = compute_statistics(store, "audio")
    for name, value in vars(one_block).items():
        np.testing.assert_array_equal(value, getattr(many_blocks, name), err_msg=name)
    assert one_block.present.sum() == len(one_block.rows) < min(len(store), MAX_SUBSET)
    row = int(one_block.rows[11])
    np.testing.assert_allclose(one_block.means[11], store.features("audio", row).mean(0), rtol=1e-5)


def test_areas_against_their_definition() -> None:
    random = np.random.default_rng(1)
    values = random.integers(0, 19, size=(61, 131)).astype(float)
    labels = random.integers(0, 2, size=(61, 3))
    for column in (0, 127, 128, 130):
        x = values[:, column]
        for label in range(3):
            above = x[labels[:, label] == 1][:, None] - x[labels[:, label] == 0]
            expected = ((above > 0) + 0.5 * (above == 0)).mean()
            np.testing.assert_allclose(auroc(values, labels)[label, column], expected)


def test_rank_correlation_and_shift() -> None:
    x = np.random.default_rng(4).permutation(97) + 1
    assert spearman(x, x**3) == pytest.approx(1)
    assert spearman(x, np.ones(97)) == spearman(np.ones(97), x) == 0
    ties = np.random.default_rng(5).integers(0, 7, size=(2, 97))
    ranks = [[(row < a).sum() + ((row == a).sum() + 1) / 2 for a in row] for row in ties]
    assert spearman(*ties) == pytest.approx(np.corrcoef(ranks)[0, 1])
    result = shift_between(x, np.roll(x, -3), max_shift=5, min_samples=50)
    assert result is not None
    assert result[:2] == (3, pytest.approx(1))
    assert shift_between(x, 0 * x, max_shift=5, min_samples=50) is None
