"""Late fusion: every modality decides alone, their logits are averaged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.baselines import LateFusionConfig
from carat.models.base import Geometry, Model, check_modalities
from carat.models.baselines.common import BaselineOutputs, SequenceEncoder, averaged, mean_over_time
from carat.models.losses.multilabel import LabelLoss
from carat.models.modality_dropout import modality_mask_of


class LateFusion(Model):
    """One Transformer encoder and one linear classifier per modality; logits averaged over those present.

    A common baseline rather than one paper's. Chosen here: mean over time before the classifier; the loss is
    the cross-entropy of the averaged logits alone.

    Args:
        config: widths and depths.
        geometry: labels and modalities.
    """

    def __init__(self, config: LateFusionConfig, geometry: Geometry) -> None:
        super().__init__()
        check_modalities(geometry.widths)
        self.max_length = dict.fromkeys(geometry.widths, config.encoder.max_length)
        self.encoders = nn.ModuleDict(
            {m: SequenceEncoder(d, config.hidden, config.encoder) for m, d in geometry.widths.items()}
        )
        self.classifiers = nn.ModuleDict(
            {m: nn.Linear(config.hidden, len(geometry.labels)) for m in geometry.widths}
        )
        self.label_loss = LabelLoss(len(geometry.labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> BaselineOutputs:
        means = {
            m: mean_over_time(encoder(features[m], masks[m]), masks[m])
            for m, encoder in self.encoders.items()
        }
        logits = torch.stack([self.classifiers[m](x) for m, x in means.items()], dim=1)  # (B, M, L)
        return averaged(logits, modality_mask_of({m: masks[m] for m in means}))

    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"total": self.label_loss(outputs.logits, labels)}
