"""A method for carat: one hidden layer on features averaged over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import carat
from carat.models.layers.masking import masked_mean


class MeanPoolingConfig(carat.MethodConfig):
    """One hidden layer on features averaged over time."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"training": {"learning_rate": 1e-3}},
        "small": {"method": {"hidden": 32}},
    }

    name: str = "mean-pooling"
    """Which method to train."""
    hidden: int = Field(default=128, gt=0)
    """Width of the hidden layer."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the hidden layer."""


@carat.register_method("mean-pooling", MeanPoolingConfig)
class MeanPooling(carat.Model):
    """Means over time of all modalities, concatenated, through a perceptron with one hidden layer."""

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: MeanPoolingConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or MeanPoolingConfig()
        self.modalities = list(widths)
        self.hidden = nn.Linear(sum(widths.values()), config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(config.hidden, len(labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> carat.ModelOutputs:
        means = [masked_mean(features[m], masks[m], dim=1) for m in self.modalities]  # (B, d_m) each
        hidden = self.dropout(F.relu(self.hidden(torch.cat(means, dim=1))))
        return carat.ModelOutputs.from_logits(self.output(hidden))

    def losses(
        self, outputs: carat.ModelOutputs, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"total": F.binary_cross_entropy_with_logits(outputs.logits, labels)}
