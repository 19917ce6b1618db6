"""What every model has without doing anything for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from carat.models.base import UNLIMITED, Model, ModelOutputs

MASK = torch.tensor([[True, True, False], [False, True, True]])
LOGITS = torch.tensor([[[1.0, -2], [3, 0], [9, 9]], [[9, 9], [-1, 2], [1, 4]]])  # (B, M, L)


@dataclass
class More(ModelOutputs):
    extra: Tensor


def test_outputs_of_logits() -> None:
    found = ModelOutputs.from_logits(LOGITS[0])
    torch.testing.assert_close(found.scores, LOGITS[0].sigmoid())
    assert found.logits is LOGITS[0] or torch.equal(found.logits, LOGITS[0])
    assert found.attribution.dtype == torch.long
    assert (found.attribution == -1).all()


def test_outputs_of_logits_by_modality() -> None:
    found = ModelOutputs.from_modality_logits(LOGITS, MASK)
    assert found.logits.tolist() == [[2, -1], [0, 3]]
    torch.testing.assert_close(found.scores, found.logits.sigmoid())
    assert found.attribution.tolist() == [[1, 1], [2, 2]]


def test_derived_outputs_have_fields_of_their_own() -> None:
    extra = torch.ones(2)
    for found in (
        More.from_logits(LOGITS[0], extra=extra),
        More.from_modality_logits(LOGITS, MASK, extra=extra),
    ):
        assert isinstance(found, More)
        assert found.extra is extra


class Least(Model):
    """Only what must be defined."""

    def __init__(self, widths: Mapping[str, int], labels: Any, config: Any = None) -> None:
        super().__init__(widths, labels)
        self.linear = nn.Linear(widths["a"], len(labels))

    def forward(self, features: Any, masks: Any) -> ModelOutputs:
        return ModelOutputs.from_logits(self.linear(features["a"].mean(1)))

    def losses(self, outputs: ModelOutputs, labels: Tensor, generator: Any = None) -> dict[str, Tensor]:
        return {"total": outputs.logits.square().mean()}


def test_defaults() -> None:
    model = Least({"a": 3, "b": 5}, ["x", "y"])
    assert model.labels == ("x", "y")
    assert model.max_length == {"a": UNLIMITED, "b": UNLIMITED}
    assert (model.is_trainable, model.num_parameters) == (True, 8)
    features = {"a": torch.randn(7, 2, 3), "b": torch.randn(7, 2, 5)}
    masks = {m: torch.ones(7, 2, dtype=torch.bool) for m in features}
    outputs, scored = model(features, masks), model.score(features, masks)
    assert torch.equal(scored.scores, outputs.scores)
    assert torch.equal(scored.attribution, outputs.attribution)
    assert model.attention(features, masks) == {}
    assert [id(p) for p in model.no_decay_parameters()] == [id(model.linear.bias)]
    before = {name: x.clone() for name, x in model.state_dict().items()}
    model.on_train_epoch_start(0)
    model.update_after_step(outputs, torch.ones(7, 2))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    model.requires_grad_(False)
    assert (model.is_trainable, model.num_parameters) == (False, 0)
