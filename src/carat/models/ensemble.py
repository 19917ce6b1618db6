"""Ensembles of trained models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from carat.models.base import Model, ModelOutputs, Scores
from carat.models.layers.masking import modality_mask_of
from carat.utils.errors import ConfigError


class Ensemble(Model):
    """Mean of the scores of trained models, over those that a sample has a modality of.

    A label is attributed to the modality to which most members attribute it.

    Args:
        members: models with the same labels.
        inputs: modalities of each member, in the order of its M axis.
        modalities: all modalities, in the order of the M axis.
    """

    def __init__(
        self, members: Sequence[Model], inputs: Sequence[Sequence[str]], modalities: Sequence[str]
    ) -> None:
        super().__init__(dict.fromkeys(modalities, 0), members[0].labels)
        self.members = nn.ModuleList(members)
        self.inputs = [list(names) for names in inputs]
        self.max_length = {
            m: max(x.max_length[m] for x, names in zip(members, inputs, strict=True) if m in names)
            for m in modalities
        }

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> ModelOutputs:
        found = self.score(features, masks)
        return ModelOutputs(found.scores, found.attribution, found.scores.logit(1e-6))

    def score(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> Scores:
        of_members = [self._score_of(i, features, masks) for i in range(len(self.members))]
        weights = torch.stack([weight for _, _, weight in of_members])  # (S, B)
        scores = torch.stack([scores for scores, _, _ in of_members])  # (S, B, L)
        mean = (scores * weights[..., None]).sum(0) / weights.sum(0)[:, None]
        votes = torch.stack([attribution for _, attribution, _ in of_members])
        return Scores(mean, votes.mode(0).values)

    def _score_of(
        self, index: int, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores and attribution (B, L) of a member, and weights (B,), 0 without any of its modalities."""
        names, (x, valid) = self.inputs[index], self._inputs_of(index, features, masks)
        model: Any = self.members[index]
        present = modality_mask_of(valid).any(1)
        if len(names) < len(masks) and not present.all():
            x, valid = ({m: values[present] for m, values in given.items()} for given in (x, valid))
        weights = present.to(torch.float32)
        places = torch.tensor([list(masks).index(m) for m in names] + [-1], device=present.device)
        if not len(valid[names[0]]):
            empty = weights[:, None].expand(-1, len(self.labels))
            return empty, torch.full_like(empty, -1, dtype=torch.long), weights
        found: Scores = model.score(x, valid)
        scores, attribution = found.scores.float(), places[found.attribution]
        if len(scores) < len(present):
            scores = scores.new_zeros(len(present), scores.shape[1]).index_copy(
                0, present.nonzero()[:, 0], scores
            )
            every = attribution.new_full(scores.shape, -1)
            attribution = every.index_copy(0, present.nonzero()[:, 0], attribution)
        return scores, attribution, weights

    def _inputs_of(
        self, index: int, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The modalities of a member, as long as it reads them."""
        model: Any = self.members[index]
        lengths = {m: model.max_length[m] for m in self.inputs[index]}
        return {m: features[m][:, :n] for m, n in lengths.items()}, {
            m: masks[m][:, :n] for m, n in lengths.items()
        }

    def losses(
        self, outputs: Any, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        raise ConfigError("an ensemble is not trained; train its members, or distill it (training.teacher)")

    @property
    def is_trainable(self) -> bool:
        return False

    @property
    def num_parameters(self) -> int:
        return sum(x.numel() for x in self.parameters())

    def extra_files(self) -> dict[str, Path]:
        members: Any = self.members
        return {name: file for member in members for name, file in member.extra_files().items()}
