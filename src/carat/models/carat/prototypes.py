"""Class prototypes: for each (modality, label) what its presence and its absence look like."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StandIn(nn.Module, ABC):
    """What replaces a modality's own latent in its reconstruction."""

    @abstractmethod
    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        """Latents (B, M, L, P), presence (B, M) → (B, M, L, P)."""

    @abstractmethod
    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """Learn from a batch: latents (B, M, L, P), labels (B, L), presence (B, M)."""


class OwnLatent(StandIn):
    """Nothing replaces it; an absent modality, which has none, gets zeros."""

    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        return latents * modality_mask[..., None, None]

    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """Nothing is learnt."""


def moving_average(means: Tensor, values: Tensor, member: Tensor, momentum: float) -> Tensor:
    """Exponential moving averages over the batch, sample by sample in order, in closed form.

    ``mean ← momentum · mean + (1 − momentum) · value`` for each sample that belongs to the class, which
    after n members is ``momentumⁿ · mean + (1 − momentum) Σᵢ momentumⁿ⁻ⁱ · valueᵢ``.

    Args:
        means: (M, L, 2, P).
        values: (B, M, L, P).
        member: (B, M, L, 2), whether the sample's value belongs to the class.
        momentum: share of the mean that stays at each update.

    Returns:
        New means (M, L, 2, P).
    """
    seen = member.to(values.dtype).cumsum(0)
    later = seen[-1] - seen  # members of the same class that follow in the batch
    share = (1 - momentum) * momentum**later * member
    return momentum ** seen[-1, ..., None] * means + torch.einsum("bmlc,bmlp->mlcp", share, values)


class Prototypes(StandIn):
    """Prototypes μ⁺, μ⁻ in the latent space, as buffers that start at 0.

    Args:
        modalities: M.
        labels: L.
        latent: P.
        momentum: share of a prototype that stays at each update (.99 in the paper).
    """

    means: Tensor

    def __init__(self, modalities: int, labels: int, latent: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(modalities, labels, 2, latent))  # μ⁺, then μ⁻

    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        """A mixture of prototypes.

        In training the mixture of μ⁺ and μ⁻ by softmax of the cosine-like similarities, at inference the
        more similar of the two; for an absent modality, of which nothing is known, half of each.

        Args:
            latents: (B, M, L, P).
            presence: (B, M).

        Returns:
            (B, M, L, P).
        """
        unit = F.normalize(latents, dim=-1)
        similarity = torch.einsum("bmlp,mlcp->bmlc", unit, self.means.to(unit.dtype))
        if self.training:
            share = similarity.softmax(-1)
        else:
            share = F.one_hot(similarity.argmax(-1), 2).to(similarity.dtype)
        share = torch.where(modality_mask[..., None, None], share, 0.5)
        return torch.einsum("bmlc,mlcp->bmlp", share, self.means.to(unit.dtype))

    @torch.no_grad()
    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """Move the prototypes towards a batch: latents (B, M, L, P), labels (B, L), presence (B, M)."""
        positive = labels[:, None].bool() & modality_mask[..., None]  # (B, M, L)
        negative = ~labels[:, None].bool() & modality_mask[..., None]
        unit = F.normalize(latents.to(self.means.dtype), dim=-1)
        member = torch.stack((positive, negative), dim=-1)
        self.means.copy_(moving_average(self.means, unit, member, self.momentum))
