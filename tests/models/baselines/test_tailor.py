"""TAILOR: common and private representations, discriminator, and order of fusion."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from carat.models.baselines import tailor
from carat.models.baselines.tailor import Discriminator, Tailor, fusion_order, orthogonality
from carat.utils.errors import ConfigError
from tests.models.baselines.test_baselines import small
from tests.models.carat.test_model import LABELS, WIDTHS, B, batch


def make(**changes: object) -> Tailor:
    method = small("tailor", **changes)
    assert isinstance(method, Tailor)
    return method.train()


def test_orthogonality_is_the_sum_of_squared_products_of_valid_steps() -> None:
    _, masks, _ = batch()
    private, common = (
        {m: torch.randn(B, 12, 6) * mask[..., None] for m, mask in masks.items()} for _ in range(2)
    )
    pairs = [(private[m], common[m], masks[m], masks[m]) for m in masks]
    pairs += [(private[m], private[n], masks[m], masks[n]) for m, n in combinations(masks, 2)]
    expected = torch.zeros(())
    for a, b, mask_a, mask_b in pairs:
        both = [i for i in range(B) if mask_a[i].any() and mask_b[i].any()]
        norms = [torch.linalg.matrix_norm(a[i][mask_a[i]] @ b[i][mask_b[i]].T) ** 2 for i in both]
        expected = expected + torch.stack(norms).mean()
    torch.testing.assert_close(orthogonality(private, common, masks), expected, atol=1e-4, rtol=1e-5)


def test_discriminator_ignores_invalid_steps() -> None:
    torch.manual_seed(0)
    _, masks, _ = batch()
    judge = Discriminator(8, 3, dropout=0.0)
    sequences = {m: torch.randn(B, 12, 8) for m in masks}
    expected = torch.zeros(())
    for i, (m, x) in enumerate(sequences.items()):
        steps = x[masks[m]]
        logits = judge.second(judge.first(steps).relu())
        expected = expected + F.cross_entropy(logits, torch.full((len(steps),), i))
    torch.testing.assert_close(judge(sequences, masks), expected)


def test_common_representations_have_a_reversed_discriminator_gradient(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compare with the same step without reversal: only the generator's gradient is negated."""

    def gradients() -> tuple[Tensor, Tensor]:
        only = {"refined": 0.0, "private": 0.0, "orthogonality": 0.0, "common": 1.0}
        method = make(weights=only)
        features, masks, labels = batch()
        outputs = method(features, masks)
        losses = method.losses(outputs, labels)
        assert method.discriminator is not None
        found = torch.autograd.grad(
            losses["total"] - losses["labels"],
            [method.common.project.weight, method.discriminator.first.weight],
        )
        return found[0], found[1]

    generator, judge = gradients()
    monkeypatch.setattr(tailor, "reverse", lambda x: x)
    straight_generator, straight_judge = gradients()
    assert generator.abs().max() > 1e-6
    torch.testing.assert_close(generator, -straight_generator)
    torch.testing.assert_close(judge, straight_judge)


def test_aligned_common_representations_are_added_step_by_step() -> None:
    features, masks, _ = batch(absent=False)
    masks = dict.fromkeys(masks, masks["text"])
    outputs = make()(features, masks)
    expected = sum(outputs.common.values())
    torch.testing.assert_close(outputs.shared[:, :12], expected, atol=1e-5, rtol=1e-5)


def test_fusion_order_starts_with_the_named_modalities() -> None:
    assert fusion_order(["audio", "visual", "text"], WIDTHS) == ["audio", "visual", "text"]
    assert fusion_order(["audio", "visual", "text"], {"gaze": 2, "text": 3}) == ["text", "gaze"]
    with pytest.raises(ConfigError, match=r"no modality 'vision'"):
        make(order=["vision"])


def test_scores_are_equivariant_to_the_label_order() -> None:
    """A label is identified only by its embedding and classifier."""
    method = make().eval()
    features, masks, _ = batch()
    before = method.score(features, masks).scores
    order = torch.randperm(len(LABELS))
    with torch.no_grad():
        for rows in (method.decoder.embeddings, method.classifiers.weight, method.classifiers.bias):
            rows.copy_(rows[order].clone())
    torch.testing.assert_close(method.score(features, masks).scores, before[:, order])
