"""Unknown labels in the losses and updates of every method."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from carat.config.methods import METHODS
from carat.models.base import TrainingData
from carat.models.baselines.lddu import calibration
from carat.models.carat.aggregation import apply_shuffle, draw_shuffle, gather_jointly
from carat.models.carat.memory_bank import EMPTY
from carat.models.carat.prototypes import Prototypes
from carat.models.losses.contrastive import ABSENT, contrast_rows
from carat.models.losses.known import known_mean
from carat.models.losses.multilabel import LabelLoss
from carat.models.losses.terms import cross_entropy
from carat.utils.errors import DataError
from tests.models.baselines.test_baselines import TRAINED, small
from tests.models.baselines.test_classical import TRAINED as FITTED
from tests.models.baselines.test_classical import N, data, fitted
from tests.models.carat.test_model import LABELS, B, batch

KINDS = ("plain", "balanced", "asymmetric")


def with_unknown(labels: Tensor, share: float = 0.4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Labels of which some are NaN, and which are known."""
    known = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)) >= share
    return torch.where(known, labels, torch.nan), known


def loss_of(kind: str, size: int) -> LabelLoss:
    loss = LabelLoss(size, kind)
    loss.weights.copy_(torch.rand(2, size) + 0.5)
    return loss


@pytest.mark.parametrize("kind", KINDS)
def test_label_loss_is_the_mean_over_known_labels_of_valid_rows(kind: str) -> None:
    logits, labels = torch.randn(5, 3, 7, requires_grad=True), torch.randint(0, 2, (5, 3, 7)).float()
    targets, known = with_unknown(labels)
    valid = torch.rand(5, 3) < 0.6
    loss = loss_of(kind, 7)
    for rows_ in (None, valid):
        counted = known if rows_ is None else known & valid[..., None]
        expected = loss.each(logits, labels)[counted].mean()
        found = loss(logits, targets, rows_)
        torch.testing.assert_close(found, expected)
        (gradient,) = torch.autograd.grad(found, logits)
        torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0])
        assert (gradient[~counted] == 0).all()
    assert (loss.each(logits, targets)[~known] == 0).all()
    if kind == "plain":
        torch.testing.assert_close(cross_entropy(logits, targets, valid), loss(logits, targets, valid))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_known_gives_no_loss_and_no_gradient(kind: str) -> None:
    logits = torch.randn(3, 5, requires_grad=True)
    loss = loss_of(kind, 5)(logits, torch.full((3, 5), torch.nan))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert (logits.grad == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_known_labels_give_the_same_bits_as_a_plain_mean(kind: str, dtype: torch.dtype) -> None:
    logits, labels = torch.randn(11, 3, 7).to(dtype), torch.randint(0, 2, (11, 3, 7)).float()
    valid = torch.rand(11, 3) < 0.6
    loss, logits = loss_of(kind, 7), logits.requires_grad_()
    weights = valid.float()
    for rows_, plain in (
        (None, loss.each(logits, labels).mean(-1).mean()),
        (valid, (loss.each(logits, labels).mean(-1) * weights).sum() / weights.sum().clamp(min=1)),
    ):
        found = loss(logits, labels, rows_)
        assert torch.equal(found, plain)
        gradients = [torch.autograd.grad(x, logits, retain_graph=True)[0] for x in (found, plain)]
        assert torch.equal(*gradients)


def test_the_mean_of_known_labels_is_exact_for_every_size() -> None:
    for size in range(1, 200):
        losses, valid = torch.rand(size, 1), torch.ones(size, dtype=torch.bool)
        known = torch.ones_like(losses, dtype=torch.bool)
        assert torch.equal(known_mean(losses, known), losses.mean()), size
        plain = losses[:, 0].sum() / size
        assert torch.equal(known_mean(losses, known, valid), plain), size


def test_class_weights_are_those_of_the_known_labels() -> None:
    labels = torch.tensor([[1, 0], [1, 1], [0, torch.nan], [torch.nan, 1]])
    loss = LabelLoss(2, "balanced", beta=0.9)
    loss.balance(labels)
    effective = 0.1 / (1 - 0.9 ** torch.tensor([[1.0, 1.0], [2.0, 2.0]]))
    counts = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    torch.testing.assert_close(loss.weights, effective * counts.sum() / (effective * counts).sum())


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("share", [0.4, 1.0])
def test_losses_and_updates_of_every_method_are_finite(name: str, share: float) -> None:
    method = small(name).train()
    features, masks, labels = batch()
    targets, _ = with_unknown(labels, share)
    for _ in range(2):
        outputs = method(features, masks)
        losses = method.losses(outputs, targets, torch.Generator().manual_seed(0))
        assert all(value.isfinite() for value in losses.values()), losses
        if method.is_trainable:
            method.zero_grad()
            losses["total"].backward()
            assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
        method.update_after_step(outputs, targets)
    assert not any(x.isnan().any() for x in method.state_dict().values())


@pytest.mark.parametrize("name", TRAINED)
def test_samples_without_any_known_label_change_no_loss_of_labels(name: str) -> None:
    """Terms of labels are means over known ones, so that samples without any have no effect on them."""
    method = small(name).train()
    features, masks, labels = batch()
    targets = labels.clone()
    targets[B // 2 :] = torch.nan
    first = [{m: x[: B // 2] for m, x in given.items()} for given in (features, masks)]
    torch.manual_seed(1)
    alone = method.losses(method(*first), labels[: B // 2], torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    together = method.losses(method(features, masks), targets, torch.Generator().manual_seed(0))
    names = {"label", "labels", "refined", "original", "alpha", "beta", "aggregate", "contrast"}
    if name == "lddu":
        names = set()  # they are those of random samples
    if len(alone) == 1:
        names = {"total"}
    for term in names & alone.keys():
        torch.testing.assert_close(together[term], alone[term], atol=1e-5, rtol=1e-5, msg=term)


def test_hidden_values_have_no_gradient_in_the_contrast() -> None:
    latents = torch.randn(5, 2, 3, 7, 11, requires_grad=True)
    labels, known = with_unknown(torch.randint(0, 2, (5, 7)).float())
    modality_mask = torch.rand(5, 3) < 0.7
    found, classes = contrast_rows(latents, labels, modality_mask)
    assert len(found) == 2 * (modality_mask[:, :, None] & known[:, None]).sum()
    assert (classes != ABSENT).all()
    (gradient,) = torch.autograd.grad(found.sum(), latents)
    unused = ~known[:, None, None] | ~modality_mask[:, None, :, None]
    assert (gradient.abs().sum(-1)[unused.expand(5, 2, 3, 7)] == 0).all()


@pytest.mark.usefixtures("values_hidden")
def test_rows_of_unknown_labels_are_absent_on_devices() -> None:
    labels, known = with_unknown(torch.randint(0, 2, (5, 7)).float())
    _, classes = contrast_rows(torch.randn(5, 2, 3, 7, 11), labels, torch.ones(5, 3, dtype=torch.bool))
    absent = (classes == ABSENT).view(5, 2, 3, 7)
    assert torch.equal(absent, ~known[:, None, None].expand(5, 2, 3, 7))


def test_memory_bank_takes_no_unknown_label() -> None:
    method = small("carat").train()
    features, masks, labels = batch()
    targets, known = with_unknown(labels)
    outputs = method(features, masks)
    method.update_after_step(outputs, targets)
    stored = method.get_buffer("memory_bank.classes")
    expected = 3 * (outputs.modality_mask[:, :, None] & known[:, None]).sum()
    assert (stored != EMPTY).sum() == min(expected, len(stored))


def test_prototypes_of_unknown_labels_stay() -> None:
    prototypes, latents = Prototypes(2, 3, 5, 0.9), torch.randn(4, 2, 3, 5)
    present = torch.ones(4, 2, dtype=torch.bool)
    labels = torch.tensor([[1, 0, torch.nan]] * 4)
    prototypes.update(latents, labels, present)
    moved = prototypes.means.abs().sum(-1) > 0  # (M, L, 2)
    assert moved.tolist() == [[[True, False], [False, True], [False, False]]] * 2


def test_shuffle_exchanges_known_labels_among_themselves() -> None:
    generator = torch.Generator().manual_seed(0)
    modality_mask = torch.rand(29, 3, generator=generator) < 0.7
    known = torch.rand(29, 5, generator=generator) < 0.6
    samples, modalities = draw_shuffle(modality_mask, 5, generator, known=known)
    kind = torch.where(known[:, None], 1, 2) * modality_mask[..., None]  # 0: absent, 1: known, 2: unknown
    assert torch.equal(apply_shuffle(kind, samples, modalities), kind)
    place = torch.arange(29 * 3 * 5).view(29, 3, 5)
    shuffled = apply_shuffle(place, samples, modalities)
    assert torch.equal(shuffled.flatten().sort().values, place.flatten())
    assert (shuffled != place)[kind == 1].any()
    jointly = gather_jointly(known[:, None].expand(-1, 3, -1), samples, modalities)
    assert torch.equal(jointly[kind == 1], torch.ones_like(jointly[kind == 1]))


def test_shuffle_of_known_labels_is_as_before() -> None:
    modality_mask = torch.rand(29, 3) < 0.7
    drawn = [
        draw_shuffle(modality_mask, 5, torch.Generator().manual_seed(1), known=known)
        for known in (None, torch.ones(29, 5, dtype=torch.bool))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))


def test_calibration_compares_known_labels() -> None:
    log_variance, errors = torch.randn(7, 3, 5), torch.rand(7, 3, 5)
    present, known = torch.rand(7, 3) < 0.7, (torch.rand(7, 5) < 0.6)
    known[:, 2] = False
    found = calibration(log_variance, errors, present, known[:, None].expand(-1, 3, -1))
    expected = []
    for label in (0, 1, 3, 4):
        rows_ = (present & known[:, [label]]).flatten()
        target, predicted = (x[..., label].flatten()[rows_].softmax(0) for x in (errors, log_variance))
        expected.append((target * (target / predicted).log()).sum())
    torch.testing.assert_close(found, torch.stack(expected).mean())
    assert calibration(log_variance, errors, present, torch.zeros(7, 3, 5, dtype=torch.bool)) == 0


def test_prior_is_the_frequency_among_known_labels() -> None:
    features, masks, labels = batch()
    targets, known = with_unknown(labels)
    method = small("prior")
    method.prepare(TrainingData(targets, [(features, masks, targets)]))
    expected = torch.stack([labels[known[:, i], i].mean() for i in range(len(LABELS))])
    torch.testing.assert_close(method.score(features, masks).scores[0], expected.clamp(1e-6, 1 - 1e-6))


def pooled(name: str, labels: Tensor) -> np.ndarray:
    """Standardized features (N, F) of the samples to which a method was fitted."""
    features, masks, _ = data()
    return fitted(name, labels).pool(features, masks)[:FITTED].double().numpy()


def test_binary_relevance_is_fitted_to_known_labels() -> None:
    features, masks, labels = data()
    targets, known = with_unknown(labels)
    x, strength = pooled("br", targets), fitted("br", targets).config.strength
    scores = fitted("br", targets).score(features, masks).scores[:FITTED]
    for i in range(labels.shape[1]):
        chosen = known[:FITTED, i].numpy()
        model = LogisticRegression(C=strength, max_iter=1000)
        model.fit(x[chosen], labels[:FITTED, i].numpy()[chosen])
        np.testing.assert_allclose(scores[:, i], model.predict_proba(x)[:, 1], atol=1e-4)


def test_classifier_chain_predicts_unknown_preceding_labels() -> None:
    labels = data()[2]
    targets, known = with_unknown(labels)
    method = fitted("cc", targets)
    x, order = pooled("cc", targets), method.get_buffer("order").tolist()
    earlier = np.zeros((FITTED, len(order)))
    coefficients = method.get_buffer("coefficients").double().numpy()
    for position, label in enumerate(order):
        inputs, chosen = np.hstack((x, earlier)), known[:FITTED, label].numpy()
        y = labels[:FITTED, label].numpy()
        model = LogisticRegression(C=method.config.strength, max_iter=1000).fit(inputs[chosen], y[chosen])
        np.testing.assert_allclose(coefficients[position], model.coef_[0], atol=1e-3)
        earlier[:, position] = np.where(chosen, y, model.predict(inputs))


def test_label_powerset_is_fitted_to_complete_samples() -> None:
    features, masks, labels = data()
    targets = labels.clone()
    targets[: FITTED // 2, 1] = torch.nan
    scores = fitted("lp", targets).score(features, masks).scores
    assert not torch.equal(scores, fitted("lp", labels).score(features, masks).scores)
    other = targets.clone()
    other[: FITTED // 2, 1:] = torch.nan
    other[: FITTED // 2, 0] = 1 - other[: FITTED // 2, 0]
    assert torch.equal(scores, fitted("lp", other).score(features, masks).scores)
    with pytest.raises(
        DataError, match=r"label powerset \(lp\) needs training samples with all labels known"
    ):
        fitted("lp", torch.full((N, 4), torch.nan))


def test_a_loss_that_forgets_unknown_labels_is_nan() -> None:
    """It must not take them as absent: training then stops, see tests/training/test_unknown_labels.py."""
    targets, _ = with_unknown(torch.ones(3, 5))
    assert F.binary_cross_entropy_with_logits(torch.zeros(3, 5), targets).isnan()
