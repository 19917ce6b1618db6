"""One linear layer on features averaged over time: what the features say by themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.baselines import LinearConfig
from carat.models.base import Geometry, Model, check_modalities
from carat.models.baselines.common import UNLIMITED, BaselineOutputs, averaged, mean_over_time
from carat.models.losses.multilabel import LabelLoss
from carat.models.modality_dropout import modality_mask_of


class Linear(Model):
    """A linear layer for each modality on its mean over time; logits averaged over those present.

    With one modality behind a pretrained encoder this is plain fine-tuning with a linear head, the yardstick
    for everything that is put on such an encoder. A common baseline rather than one paper's.

    Args:
        config: dropout.
        geometry: labels and modalities.
    """

    def __init__(self, config: LinearConfig, geometry: Geometry) -> None:
        super().__init__()
        check_modalities(geometry.widths)
        self.max_length = dict.fromkeys(geometry.widths, UNLIMITED)
        self.dropout = nn.Dropout(config.dropout)
        self.classifiers = nn.ModuleDict(
            {m: nn.Linear(d, len(geometry.labels)) for m, d in geometry.widths.items()}
        )
        self.label_loss = LabelLoss(len(geometry.labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> BaselineOutputs:
        means = {m: self.dropout(mean_over_time(features[m], masks[m])) for m in self.classifiers}
        logits = torch.stack([self.classifiers[m](x) for m, x in means.items()], dim=1)  # (B, M, L)
        return averaged(logits, modality_mask_of({m: masks[m] for m in means}))

    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"total": self.label_loss(outputs.logits, labels)}
