"""One linear layer per modality on features averaged over time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.baselines import LinearConfig
from carat.models.base import Model, ModelOutputs, check_modalities
from carat.models.layers.masking import masked_mean, modality_mask_of
from carat.models.losses.multilabel import LabelLoss


class Linear(Model):
    """One linear layer per modality on its mean over time; logits averaged over those present.

    With one modality behind a pretrained encoder this is plain fine-tuning with a linear head, the baseline
    for all other models with that encoder. A common baseline without a single source.

    Unknown labels are left out of the cross-entropy.

    Args:
        widths, labels: see `Model`.
        config: dropout; the defaults when None.
    """

    weight_axes = {"classifiers.*.weight": "L D", "classifiers.*.bias": "L"}

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: LinearConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or LinearConfig()
        check_modalities(widths)
        self.dropout = nn.Dropout(config.dropout)
        self.classifiers = nn.ModuleDict({m: nn.Linear(d, len(labels)) for m, d in widths.items()})
        self.label_loss = LabelLoss(len(labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        means = {m: self.dropout(masked_mean(features[m], masks[m], dim=1)) for m in self.classifiers}
        logits = torch.stack([self.classifiers[m](x) for m, x in means.items()], dim=1)  # (B, M, L)
        return ModelOutputs.from_modality_logits(logits, modality_mask_of(masks, means))

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        return {"total": self.label_loss(outputs.logits, labels if targets is None else targets)}
