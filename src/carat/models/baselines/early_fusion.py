"""Early fusion: one Transformer over the sequences, concatenated feature-wise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from carat.config.baselines import EarlyFusionConfig
from carat.models.base import Model, ModelOutputs, check_modalities
from carat.models.baselines.common import SequenceEncoder
from carat.models.layers.masking import masked_mean
from carat.models.losses.multilabel import LabelLoss
from carat.utils.errors import ConfigError


class EarlyFusion(Model):
    """Transformer encoder over aligned, concatenated sequences, mean over time, and a linear classifier.

    A common baseline without a single source. Sequences are resampled to a common time axis with the length
    of the sample's longest sequence, at most `steps`; each step is the mean of a modality's steps that fall
    into it, or the nearest preceding one; absent modalities are zero.

    Unknown labels are left out of the cross-entropy.

    Args:
        widths, labels: see `Model`.
        config: widths, depths and steps; the defaults when None.

    Raises:
        ConfigError: `steps` exceeds the number of position embeddings.
    """

    weight_axes = {"classifier.weight": "L D", "classifier.bias": "L"}
    ordered_weights = ("encoder.norm.*", "encoder.encoder.project.weight")

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: EarlyFusionConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or EarlyFusionConfig()
        check_modalities(widths)
        if config.steps > config.encoder.max_length:
            raise ConfigError(
                f"method.steps {config.steps} exceeds encoder.max_length {config.encoder.max_length}"
            )
        self.steps, self.modalities = config.steps, list(widths)
        self.norms = nn.ModuleDict({m: nn.LayerNorm(d) for m, d in widths.items()})
        self.encoder = SequenceEncoder(sum(widths.values()), config.hidden, config.encoder)
        self.classifier = nn.Linear(config.hidden, len(labels))
        self.label_loss = LabelLoss(len(labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        lengths = torch.stack([masks[m].sum(1) for m in self.modalities], dim=1)  # (B, M)
        axis = lengths.amax(1).clamp(max=self.steps)  # (B,)
        resampled = [
            resample(self.norms[m](features[m]), masks[m], axis, self.steps) for m in self.modalities
        ]
        mask = torch.arange(self.steps, device=axis.device) < axis[:, None]
        hidden = self.encoder(torch.cat(resampled, dim=-1), mask)
        return ModelOutputs.from_logits(self.classifier(masked_mean(hidden, mask, dim=1)))

    def losses(
        self,
        outputs: Any,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        return {"total": self.label_loss(outputs.logits, labels if targets is None else targets)}


def resample(x: Tensor, mask: Tensor, axis: Tensor, steps: int) -> Tensor:
    """Resample sequences to a common time axis.

    Each step of the axis is the mean over one of equal segments of the valid steps, of at least one step.

    Args:
        x: (B, T, d).
        mask: (B, T), valid = True.
        axis: (B,), number of steps of each sample's axis.
        steps: length of the result.

    Returns:
        (B, steps, d), zeros for empty sequences and beyond the axis.
    """
    length = mask.sum(1)[:, None]  # (B, 1)
    rank = mask.long().cumsum(1)  # 1 … length at valid steps
    sums = torch.cat((torch.zeros_like(x[:, :1]), (x * mask[..., None].to(x.dtype)).cumsum(1)), dim=1)
    # sums[:, t] is the sum of the first t steps of the padded sequence; where the k-th valid step ends:
    position = torch.arange(1, mask.shape[1] + 1, device=x.device).expand_as(rank)
    ends = torch.zeros(len(mask), mask.shape[1] + 1, dtype=torch.long, device=x.device)
    ends = ends.scatter_reduce(1, rank * mask, position * mask, "amax", include_self=True)
    k = torch.arange(steps, device=x.device)[None]
    span = axis.clamp(min=1)[:, None]
    first = (k * length) // span
    last = torch.maximum(((k + 1) * length) // span, first + 1)
    inside = (k < axis[:, None]) & (length > 0)
    first, last = (t.clamp(max=length) * inside for t in (first, last))
    low, high = (ends.gather(1, t)[..., None].expand(-1, -1, x.shape[-1]) for t in (first, last))
    total = sums.gather(1, high) - sums.gather(1, low)
    return total / (last - first).clamp(min=1)[..., None].to(x.dtype)
