"""Late fusion: averaged logits of one classifier per modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.baselines import LateFusionConfig
from carat.models.base import Model, ModelOutputs, check_modalities
from carat.models.baselines.common import SequenceEncoder
from carat.models.layers.masking import masked_mean, modality_mask_of
from carat.models.losses.multilabel import LabelLoss


class LateFusion(Model):
    """One Transformer encoder and one linear classifier per modality; logits averaged over those present.

    A common baseline without a single source. The classifier takes the mean over time; the loss is the
    cross-entropy of the averaged logits.

    Unknown labels are left out of the cross-entropy.

    Args:
        widths, labels: see `Model`.
        config: widths and depths; the defaults when None.
    """

    weight_axes = {"classifiers.*.weight": "L D", "classifiers.*.bias": "L"}

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: LateFusionConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or LateFusionConfig()
        check_modalities(widths)
        self.max_length = dict.fromkeys(widths, config.encoder.max_length)
        self.encoders = nn.ModuleDict(
            {m: SequenceEncoder(d, config.hidden, config.encoder) for m, d in widths.items()}
        )
        self.classifiers = nn.ModuleDict({m: nn.Linear(config.hidden, len(labels)) for m in widths})
        self.label_loss = LabelLoss(len(labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        means = {
            m: masked_mean(encoder(features[m], masks[m]), masks[m], dim=1)
            for m, encoder in self.encoders.items()
        }
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
