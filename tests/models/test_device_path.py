"""What runs on a GPU, in a compiled graph or in an exported one: no shape depends on a value."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import torch
from torch import Tensor

from carat.config.experiment import TrainingConfig
from carat.models.carat.aggregation import draw_shuffle
from carat.models.carat.model import Carat
from carat.training.optimizer import clip_gradients, make_optimizer
from tests.models.carat.test_model import LABELS, WIDTHS, B, batch, make

OFFICIAL = {"queue_anchors": True, "average_over_all": True, "epsilon": 1e-12, "noise": True}


def one_step(method: Carat) -> dict[str, Any]:
    """Scores, terms, gradients and buffers after a step, where some modalities are absent."""
    features, masks, labels = batch()
    outputs = method(features, masks)
    shuffle = draw_shuffle(outputs.modality_mask, len(LABELS), torch.Generator().manual_seed(1))
    losses = method.losses_of_shuffle(outputs, labels, *shuffle)
    losses["total"].backward()
    method.update_after_step(outputs, labels)
    gradients = {name: p.grad for name, p in method.named_parameters() if p.grad is not None}
    return {"scores": outputs.scores} | losses | gradients | dict(method.named_buffers())


def both_ways(request: pytest.FixtureRequest, **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two steps each, so that the second meets a filled queue: by the path of the CPU, then by the other."""
    found = []
    for hidden in (False, True):
        if hidden:
            request.getfixturevalue("values_hidden")
        method = make(**changes)
        one_step(method)
        method.zero_grad()
        found.append(one_step(method))
    return found[0], found[1]


@pytest.mark.parametrize(
    "changes",
    [{}, {"contrast": OFFICIAL | {"queue": 61}}, {"alignment": {"modalities": ["audio"], "steps": 5}}],
)
def test_both_paths_give_the_same(request: pytest.FixtureRequest, changes: dict[str, Any]) -> None:
    here, there = both_ways(request, **({"contrast": {"queue": 61}} | changes))
    if "epsilon" in changes.get("contrast", {}):
        assert here["contrast"] > 0
    assert here.keys() == there.keys()
    for name in here:
        torch.testing.assert_close(there[name], here[name], atol=1e-5, rtol=1e-5, msg=name)


def test_a_training_step_reads_no_value_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device there are no values: whatever would wait for one raises."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # not there for meta
    with torch.device("meta"):
        for contrast in ({}, OFFICIAL):
            method = make(contrast=contrast, alignment={"modalities": ["audio"], "steps": 5}).train()
            features = {m: torch.zeros(B, 12, d) for m, d in WIDTHS.items()}
            masks = {m: torch.ones(B, 12, dtype=torch.bool) for m in WIDTHS}
            labels = torch.zeros(B, len(LABELS))
            outputs = method(features, masks)
            losses = method.losses(outputs, labels)
            losses["total"].backward()
            optimizer, schedule = make_optimizer(method, TrainingConfig(), 10)
            clip_gradients(method.parameters(), 1.0, 1.0)
            optimizer.step()
            schedule.step()
            method.update_after_step(outputs, labels)
            with pytest.raises(RuntimeError, match=r"item\(\)"):
                losses["total"].detach().item()


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # by PyTorch itself
@pytest.mark.slow
def test_forward_and_losses_are_one_graph() -> None:
    method = make()
    features, masks, labels = batch()
    shuffle = draw_shuffle(method(features, masks).modality_mask, len(LABELS))

    def whole() -> tuple[Tensor, Tensor]:
        outputs = method(features, masks)
        return outputs.scores, method.losses_of_shuffle(outputs, labels, *shuffle)["total"]

    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(), whole(), atol=1e-5, rtol=1e-5)
