"""The prior: training frequencies of the labels, independent of the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from carat.config.baselines import PriorConfig
from carat.models.base import Model, ModelOutputs, TrainingData
from carat.models.losses.known import split_targets
from carat.models.losses.terms import cross_entropy


class Prior(Model):
    """Every sample's score is the frequency of the label in the training split, where it is known.

    Args:
        widths, labels: see `Model`.
        config: without settings.
    """

    logits: Tensor

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: PriorConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or PriorConfig()
        self.register_buffer("logits", torch.zeros(len(labels)))

    def prepare(self, data: TrainingData) -> None:
        labels, known = split_targets(data.labels)
        frequency = (labels.sum(0) / known.sum(0).clamp(min=1)).clamp(1e-6, 1 - 1e-6)
        self.logits.copy_(frequency.logit())

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        batch = next(iter(masks.values())).shape[0]
        return ModelOutputs.from_logits(self.logits.expand(batch, -1))

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        return {"total": cross_entropy(outputs.logits, labels if targets is None else targets)}
