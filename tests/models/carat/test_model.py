"""CARAT as a whole: masks, absent modalities, gradients, state, and the objective from the equations."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from carat.config.experiment import CaratConfig
from carat.models.build import build_model
from carat.models.carat.aggregation import apply_shuffle, draw_shuffle
from carat.models.carat.model import Carat
from carat.utils.errors import ConfigError

WIDTHS = {"text": 5, "visual": 3, "audio": 7}
LABELS = ("a", "b", "c", "d")
B, L = 11, len(LABELS)


def make(widths: dict[str, int] | None = None, **changes: Any) -> Carat:
    torch.manual_seed(0)
    encoder = {"layers": dict.fromkeys(WIDTHS, 1), "other_layers": 1, "heads": 2, "feedforward": 6}
    config = {"hidden": 10, "latent": 4, "encoder": encoder | {"max_length": 13, "dropout": 0.0}} | changes
    method = Carat(widths or WIDTHS, LABELS, CaratConfig.model_validate(config))
    method.network.prototypes.means.normal_()
    return method


def batch(absent: bool = True) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor]:
    """Random inputs; sample i lacks modality i % 5 where there is one of that number."""
    generator = torch.Generator().manual_seed(1)
    features, masks = {}, {}
    for place, (m, width) in enumerate(WIDTHS.items()):
        steps = torch.randint(1, 12, (B,), generator=generator)
        if absent:
            steps[torch.arange(B) % 5 == place] = 0
        masks[m] = torch.arange(12) < steps[:, None]
        features[m] = torch.randn(B, 12, width, generator=generator) * masks[m][..., None]
    return features, masks, torch.randint(0, 2, (B, L), generator=generator).float()


def test_padding_and_absent_values_have_no_effect() -> None:
    method = make().eval()
    features, masks, _ = batch()
    clean = method(features, masks)
    noisy = method({m: torch.where(masks[m][..., None], x, 1e3) for m, x in features.items()}, masks)
    torch.testing.assert_close(noisy.scores, clean.scores)
    longer = {m: F.pad(x, (0, 0, 0, 9)) for m, x in features.items()}
    wider = method(longer, {m: F.pad(mask, (0, 9)) for m, mask in masks.items()})
    torch.testing.assert_close(wider.scores, clean.scores)


@pytest.mark.parametrize("changes", [{}, {"levels": 0}, {"aggregation": False}])
def test_score_is_what_forward_scores(changes: dict[str, Any]) -> None:
    method = make(**changes).eval()
    features, masks, _ = batch()
    scored, outputs = method.score(features, masks), method(features, masks)
    torch.testing.assert_close(scored.scores, outputs.scores)
    assert (scored.attribution == outputs.attribution).all()


def test_a_sample_does_not_depend_on_its_batch() -> None:
    method = make().eval()
    features, masks, _ = batch()
    together = method(features, masks)
    for i in range(B):
        alone = method({m: x[[i]] for m, x in features.items()}, {m: x[[i]] for m, x in masks.items()})
        torch.testing.assert_close(alone.scores[0], together.scores[i])
        assert (alone.attribution[0] == together.attribution[i]).all()


@pytest.mark.parametrize("present", [c for n in (1, 2, 3) for c in combinations(WIDTHS, n)])
def test_any_subset_of_modalities_gives_finite_scores_and_gradients(present: tuple[str, ...]) -> None:
    method = make()
    features, masks, labels = batch(absent=False)
    masks = {m: mask & (m in present) for m, mask in masks.items()}
    outputs = method(features, masks)
    losses = method.losses(outputs, labels)
    losses["total"].backward()
    method.update_after_step(outputs, labels)
    method.eval()
    scores = method(features, masks).scores
    assert ((scores >= 0) & (scores <= 1)).all()
    assert all(x.isfinite() for x in losses.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    assert method.network.prototypes.means.isfinite().all()
    chosen = [list(WIDTHS).index(m) for m in present]
    assert set(outputs.attribution.unique().tolist()) <= set(chosen)


def test_absent_modality_does_not_enter_pooling_losses_or_contrast() -> None:
    """Whatever stands in an absent modality's slots of the outputs, terms and state stay the same."""
    method = make()
    features, masks, labels = batch()
    outputs = method(features, masks)
    gone = ~outputs.modality_mask
    assert gone.any()
    generator = torch.Generator()
    expected = method.losses(outputs, labels, generator.manual_seed(3))
    for name in ("features", "latents", "logits"):
        level = getattr(outputs, name).clone()  # (B, 3, M, L, …)
        level.transpose(1, 2)[gone] = 7.0
        setattr(outputs, name, level)
    for name in ("decoded", "aggregated"):
        values = getattr(outputs, name).clone()
        values[gone] = -9.0
        setattr(outputs, name, values)
    found = method.losses(outputs, labels, generator.manual_seed(3))
    torch.testing.assert_close(found, expected)
    rows, classes = method._contrast_rows(outputs, labels)
    assert len(rows) == 3 * L * int(outputs.modality_mask.sum())
    assert set((classes // (2 * L)).tolist()) == {0, 1, 2}


def test_absent_modality_is_rebuilt_from_the_uninformed_mixture() -> None:
    method = make().eval()
    features, masks, _ = batch()
    outputs = method(features, masks)
    b, m = (~outputs.modality_mask).nonzero()[0].tolist()
    mixture = method.network.prototypes.means[m].mean(1)  # (L, P)
    spread = torch.zeros(1, 3, L, 4)
    spread[0, m] = mixture
    torch.testing.assert_close(outputs.decoded[b, m], method.network.latent.decode(spread)[0, m])


def test_gradient_reaches_every_parameter() -> None:
    method = make(alignment={"modalities": ["visual"], "steps": 6})
    features, masks, labels = batch()
    method.losses(method(features, masks), labels)["total"].backward()
    idle = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.any()]
    assert idle == []


def test_forward_and_losses_change_no_state() -> None:
    method = make()
    features, masks, labels = batch()
    before = {name: x.clone() for name, x in method.state_dict().items()}
    outputs = method(features, masks)
    method.losses(outputs, labels)
    assert all(torch.equal(x, before[name]) for name, x in method.state_dict().items())
    method.update_after_step(outputs, labels)
    changed = {name for name, x in method.state_dict().items() if not torch.equal(x, before[name])}
    assert changed == {
        "network.prototypes.means",
        "memory_bank.rows",
        "memory_bank.classes",
        "memory_bank.pointer",
    }


def test_queue_holds_no_graph_and_keeps_the_order_of_the_paper() -> None:
    method = make()
    features, masks, labels = batch(absent=False)
    outputs = method(features, masks)
    method.update_after_step(outputs, labels)
    assert not method.memory_bank.rows.requires_grad
    place = 0
    for b in range(B):
        for level in range(3):
            for m in range(3):
                for label in range(L):
                    expected = F.normalize(outputs.latents[b, level, m, label], dim=0)
                    torch.testing.assert_close(method.memory_bank.rows[place], expected.detach())
                    kind = label + L * (2 * m + (0 if labels[b, label] else 1))
                    assert method.memory_bank.classes[place] == kind
                    place += 1


def test_objective_is_the_papers_sum() -> None:
    method = make()
    features, masks, labels = batch(absent=False)
    outputs = method(features, masks)
    found = method.losses(outputs, labels, torch.Generator().manual_seed(3))
    bce, mse = F.binary_cross_entropy_with_logits, F.mse_loss
    original, alpha, beta = outputs.features.unbind(1)
    expected = {
        name: bce(outputs.logits[:, level].max(1).values, labels)
        for level, name in enumerate(("original", "alpha", "beta"))
    }
    for name, level in (("reconstruction", outputs.decoded), ("alpha", alpha), ("beta", beta)):
        expected[f"mse_{name}"] = sum((mse(level[:, m], original[:, m]) for m in range(3)), torch.zeros(()))
    index = draw_shuffle(outputs.modality_mask, L, torch.Generator().manual_seed(3))
    targets = labels[:, None].expand(B, 3, L)
    expected["aggregate"] = bce(outputs.aggregated, targets)
    shuffled = method.network.aggregation(apply_shuffle(beta, *index))
    expected["shuffled"] = bce(shuffled, apply_shuffle(targets, *index))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, msg=name)
    total = (
        0.01 * found["original"]
        + 0.1 * found["alpha"]
        + found["beta"]
        + found["contrast"]
        + found["mse_reconstruction"]
        + found["mse_alpha"]
        + found["aggregate"]
        + 0.1 * found["shuffled"]
    )
    torch.testing.assert_close(found["total"], total)


def test_score_is_the_mean_of_pooled_and_aggregated() -> None:
    method = make().eval()
    features, masks, _ = batch()
    outputs = method(features, masks)
    for b in range(B):
        present = outputs.modality_mask[b].nonzero().flatten()
        beta = outputs.logits[b, 2, present]
        joint = outputs.aggregated[b, present].sigmoid().mean(0)
        torch.testing.assert_close(outputs.scores[b], (beta.max(0).values.sigmoid() + joint) / 2)
        assert outputs.attribution[b].tolist() == present[beta.argmax(0)].tolist()


@pytest.mark.parametrize("names", [["text"], ["text", "smell"], ["a", "b", "c", "d", "e"]])
def test_any_number_of_modalities(names: list[str]) -> None:
    widths = {m: 2 + i for i, m in enumerate(names)}
    method = make(widths)
    features = {m: torch.randn(3, 4, d) for m, d in widths.items()}
    masks = {m: torch.ones(3, 4, dtype=torch.bool) for m in widths}
    outputs = method(features, masks)
    labels = torch.ones(3, L)
    method.losses(outputs, labels)["total"].backward()
    assert outputs.scores.shape == (3, L)
    assert outputs.features.shape == (3, 3, len(names), L, 10)


def test_bf16_autocast_stays_close() -> None:
    method = make().eval()
    features, masks, labels = batch()
    exact = method(features, masks)
    with torch.autocast("cpu", torch.bfloat16):
        rough = method(features, masks)
        losses = method.losses(rough, labels)
    assert (rough.scores.float() - exact.scores).abs().max() < 0.05
    assert losses["contrast"].dtype == torch.float32
    losses["total"].backward()


def test_papers_size() -> None:
    method = Carat({"text": 300, "visual": 35, "audio": 74}, "abcdef")
    number = sum(p.numel() for p in method.parameters())
    assert 7.0e6 < number < 7.5e6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 9}, "method.hidden 9 is not a multiple of encoder.heads 2"),
        (
            {"alignment": {"modalities": ["visual"], "steps": 14}},
            "steps 14 exceeds encoder.max_length 13",
        ),
        ({"alignment": {"modalities": ["adio"], "steps": 5}}, r"no modality 'adio'; did you mean 'audio'\?"),
        ({"encoder": {"layers": {"tekst": 3}, "heads": 2}}, r"no modality 'tekst'; did you mean 'text'\?"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**changes)


def test_names_that_pytorch_takes_are_refused() -> None:
    with pytest.raises(ConfigError, match="modality 'keys': the name is reserved"):
        make({"keys": 3})


def test_unknown_method() -> None:
    config = CaratConfig.model_construct(name="karat")
    with pytest.raises(ConfigError, match=r"unknown method 'karat'; did you mean 'carat'\?"):
        build_model(config, WIDTHS, LABELS)


@pytest.mark.parametrize("aggregation", [True, False])
def test_original_features_count_in_the_score(aggregation: bool) -> None:
    method = make(score_original=True, aggregation=aggregation).eval()
    features, masks, _ = batch()
    with torch.inference_mode():
        outputs, alone = method(features, masks), method.score(features, masks)
    there = outputs.modality_mask[..., None]
    logits = outputs.logits.masked_fill(~there[:, None], float("-inf"))
    parts = [logits[:, place].amax(1).sigmoid() for place in (0, -1)]
    if aggregation:
        parts.append((outputs.aggregated.sigmoid() * there).sum(1) / there.sum(1))
    torch.testing.assert_close(outputs.scores, torch.stack(parts).mean(0))
    torch.testing.assert_close(alone.scores, outputs.scores)
    assert (alone.attribution == outputs.attribution).all()
