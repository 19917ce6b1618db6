"""br, cc and lp against scikit-learn, on features pooled with NumPy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.multioutput import ClassifierChain
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from carat.config.methods import find_method
from carat.models.base import TrainingData
from carat.models.baselines.classical import MIN_PROBABILITY, Pooled
from carat.models.build import build_model

WIDTHS = {"text": 4, "visual": 2, "audio": 3}
LABELS = ("a", "b", "c", "d")
N, TRAINED = 300, 200
Sequences = dict[str, Tensor]


def data(absent: bool = True) -> tuple[Sequences, Sequences, Tensor]:
    """Samples whose labels can be told from the means; `a` helps with `b`, sample i may lack modality i % 7.

    What is not valid is noise.
    """
    generator = torch.Generator().manual_seed(3)
    features, masks, means = {}, {}, []
    for place, (m, width) in enumerate(WIDTHS.items()):
        lengths = torch.randint(1, 9, (N,), generator=generator)
        if absent:
            lengths[torch.arange(N) % 7 == place] = 0
        masks[m] = torch.arange(8) < lengths[:, None]
        mean = torch.randn(N, 1, width, generator=generator)
        x = 5 * place + (place + 1) * (mean + 0.3 * torch.randn(N, 8, width, generator=generator))
        features[m] = x.where(masks[m][..., None], 1e3)
        means.append(mean[:, 0] * masks[m].any(1, keepdim=True))
    logits = torch.cat(means, 1) @ torch.randn(9, len(LABELS), generator=generator)
    labels = (logits + 0.5 * torch.randn(N, len(LABELS), generator=generator) > 0.5).float()
    labels[:, 1] = ((labels[:, 0] > 0) | (logits[:, 1] > 2)).float()
    return features, masks, labels


def rows(given: Sequences, chosen: slice) -> Sequences:
    return {m: x[chosen] for m, x in given.items()}


def fitted(name: str, labels: Tensor, absent: bool = True, **changes: Any) -> Pooled:
    """Prepared on the first samples, in two batches."""
    features, masks, _ = data(absent)
    method = build_model(find_method(name).config_class()(**changes), WIDTHS, LABELS)
    parts = [slice(0, 77), slice(77, TRAINED)]
    method.prepare(
        TrainingData(labels[:TRAINED], [(rows(features, p), rows(masks, p), labels[p]) for p in parts])
    )
    assert isinstance(method, Pooled)
    assert not method.is_trainable
    return method


def scores(method: Pooled, absent: bool = True) -> NDArray[Any]:
    features, masks, _ = data(absent)
    with torch.no_grad():
        return method.score(features, masks).scores.numpy()


def standardized(absent: bool = True) -> NDArray[Any]:
    """The pooled features (N, F), standardized by the training samples that have them."""
    features, masks, _ = data(absent)
    found, there = [], []
    for m in WIDTHS:
        means = [
            x[mask].double().mean(0).numpy() if mask.any() else np.full(WIDTHS[m], np.nan)
            for x, mask in zip(features[m], masks[m], strict=True)
        ]
        scaler = StandardScaler().fit(means[:TRAINED])
        found.append(np.nan_to_num(scaler.transform(means)))
        there.append(~np.isnan(means).any(1))
    return np.hstack([*found, np.stack(there, 1)])


def regression(strength: float = 1.0) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=300)


def close(found: NDArray[Any], expected: NDArray[Any]) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("strength", [0.03, 1.0])
def test_br_equals_one_regression_per_label(strength: float, absent: bool) -> None:
    x, labels = standardized(absent), data(absent)[2]
    found = scores(fitted("br", labels, absent, strength=strength), absent)
    for label in range(len(LABELS)):
        model = regression(strength).fit(x[:TRAINED], labels[:TRAINED, label])
        close(found[:, label], model.predict_proba(x)[:, 1])


def test_br_attributes_to_the_largest_contribution() -> None:
    labels, x = data()[2], standardized()
    features, masks, _ = data()
    attribution = fitted("br", labels).score(features, masks).attribution
    ends = np.cumsum([0, *WIDTHS.values()])
    for label in range(len(LABELS)):
        parts = x[:, :-3] * regression().fit(x[:TRAINED], labels[:TRAINED, label]).coef_[0, :-3]
        added = np.stack([parts[:, i:j].sum(1) for i, j in pairwise(ends)], 1)
        expected = np.where(x[:, -3:] > 0, added, -np.inf).argmax(1)
        assert (attribution[:, label].numpy() == expected).all()


@pytest.mark.parametrize("absent", [False, True])
def test_cc_equals_the_chain_of_scikit_learn(absent: bool) -> None:
    x, labels = standardized(absent), data(absent)[2]
    method = fitted("cc", labels, absent)
    order = np.argsort(-labels[:TRAINED].sum(0).numpy(), kind="stable")
    assert order.tolist() != list(range(len(LABELS)))  # else the order were not tested
    chain = ClassifierChain(regression(), order=order).fit(x[:TRAINED], labels[:TRAINED].numpy())
    close(scores(method, absent), chain.predict_proba(x))
    alone = scores(fitted("br", labels, absent), absent)
    assert np.abs(scores(method, absent) - alone).max() > 0.1  # what came before is seen


@pytest.mark.parametrize("sets", [64, 5, 2])
def test_lp_scores_are_marginal_probabilities(sets: int) -> None:
    x, labels = standardized(), data()[2].numpy()
    found = scores(fitted("lp", torch.from_numpy(labels), sets=sets))
    kinds, counts = np.unique(labels[:TRAINED], axis=0, return_counts=True)
    assert len(kinds) > 5
    kept = kinds[np.argsort(-counts, kind="stable")[:sets]]
    kind = (labels[:TRAINED, None] == kept).all(2)
    taught = kind.any(1)
    model = regression().fit(x[:TRAINED][taught], kind[taught].argmax(1))
    close(found, np.clip(model.predict_proba(x) @ kept, MIN_PROBABILITY, 1 - MIN_PROBABILITY))


def test_lp_with_a_single_set_always_predicts_it() -> None:
    only = torch.tensor([0.0, 1, 1, 0])
    found = scores(fitted("lp", only.expand(N, -1)))
    np.testing.assert_allclose(
        found, np.tile(only.clamp(MIN_PROBABILITY, 1 - MIN_PROBABILITY).numpy(), (N, 1)), rtol=1e-3
    )


def test_lp_can_be_prepared_again() -> None:
    """No state remains of an earlier training split."""
    features, masks, labels = data()
    method, few = fitted("lp", labels), (labels[:, :1] * torch.tensor([1.0, 0, 0, 1]))
    method.prepare(TrainingData(few, [(features, masks, few)]))
    again = build_model(find_method("lp").config_class()(), WIDTHS, LABELS)
    again.prepare(TrainingData(few, [(features, masks, few)]))
    torch.testing.assert_close(method.state_dict(), again.state_dict())


@pytest.mark.parametrize("name", ["br", "cc", "lp"])
def test_labels_that_never_or_always_occur(name: str) -> None:
    labels = data()[2]
    constant = labels.clone()
    constant[:, 2], constant[:, 3] = 0, 1
    found = scores(fitted(name, constant))
    np.testing.assert_allclose(found[:, 2], MIN_PROBABILITY, rtol=1e-3)
    np.testing.assert_allclose(found[:, 3], 1 - MIN_PROBABILITY, rtol=1e-6)
    if name == "br":  # the others are as they were
        close(found[:, :2], scores(fitted(name, labels))[:, :2])
    assert ((found[:, :2] > 0.1) & (found[:, :2] < 0.9)).any()


@pytest.mark.parametrize("name", ["br", "cc", "lp"])
def test_modality_absent_from_training_is_supported(name: str) -> None:
    features, masks, labels = data(absent=False)
    without = masks | {"visual": torch.zeros_like(masks["visual"])}
    method = build_model(find_method(name).config_class()(), WIDTHS, LABELS)
    method.prepare(TrainingData(labels, [(features, without, labels)]))
    expected = method.score(features, without)
    assert expected.scores.isfinite().all()
    # nothing was learned of it, so that its presence and its values say nothing
    torch.testing.assert_close(method.score(features, masks).scores, expected.scores)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567])
@pytest.mark.parametrize("name", ["br", "cc", "lp"])
def test_constant_feature_has_no_effect(name: str, value: float) -> None:
    """Rounding errors of the mean do not count as variance."""
    features, masks, labels = data()
    features["audio"][..., 1] = value
    method = build_model(find_method(name).config_class()(), WIDTHS, LABELS)
    method.prepare(TrainingData(labels, [(features, masks, labels)]))
    expected = method.score(features, masks).scores
    moved = features["audio"].clone()
    moved[..., 1] += 1e-6 * abs(value)
    found = method.score(features | {"audio": moved}, masks).scores
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
