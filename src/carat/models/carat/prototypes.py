"""Class prototypes: a positive and a negative latent per (modality, label)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StandIn(nn.Module, ABC):
    """Stand-in for a modality's own latent in its reconstruction."""

    @abstractmethod
    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        """Stand-ins for a batch of latents.

        Args:
            latents: (B, M, L, P).
            modality_mask: (B, M) bool, present = True.

        Returns:
            (B, M, L, P).
        """

    @abstractmethod
    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """Update the state from a batch.

        Args:
            latents: (B, M, L, P).
            labels: (B, L), 0 or 1, NaN where unknown.
            modality_mask: (B, M) bool, present = True.
        """


class OwnLatent(StandIn):
    """No stand-in: the modality's own latent, zeros for an absent modality."""

    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        return latents * modality_mask[..., None, None]

    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """No state to update."""


def moving_average(means: Tensor, values: Tensor, member: Tensor, momentum: float) -> Tensor:
    """Exponential moving averages over the samples of a batch in order, in closed form.

    ``mean ← momentum · mean + (1 − momentum) · value`` for each sample of the class, which after n samples is
    ``momentumⁿ · mean + (1 − momentum) Σᵢ momentumⁿ⁻ⁱ · valueᵢ``.

    Args:
        means: (M, L, 2, P).
        values: (B, M, L, P).
        member: (B, M, L, 2) bool, whether the value belongs to the class.
        momentum: weight of the old mean in each update, in [0, 1].

    Returns:
        New means (M, L, 2, P).
    """
    count = member.to(values.dtype).cumsum(0)
    later = count[-1] - count  # samples of the same class that follow in the batch
    weights = (1 - momentum) * momentum**later * member
    return momentum ** count[-1, ..., None] * means + torch.einsum("bmlc,bmlp->mlcp", weights, values)


class Prototypes(StandIn):
    """Prototypes μ⁺ and μ⁻ in the latent space, initially 0.

    Args:
        modalities: M.
        labels: L.
        latent: P.
        momentum: weight of the old prototype in each update (0.99 in the paper).
    """

    means: Tensor

    def __init__(self, modalities: int, labels: int, latent: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(modalities, labels, 2, latent))  # μ⁺, then μ⁻

    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        """Mixtures of prototypes.

        In training, μ⁺ and μ⁻ are weighted by the softmax of their dot products with the normalized latent;
        at inference, the more similar one is chosen. For absent modalities both have weight ½.

        Args:
            latents: (B, M, L, P).
            modality_mask: (B, M) bool, present = True.

        Returns:
            (B, M, L, P).
        """
        unit = F.normalize(latents, dim=-1)
        similarity = torch.einsum("bmlp,mlcp->bmlc", unit, self.means.to(unit.dtype))
        if self.training:
            weights = similarity.softmax(-1)
        else:
            weights = F.one_hot(similarity.argmax(-1), 2).to(similarity.dtype)
        weights = torch.where(modality_mask[..., None, None], weights, 0.5)
        return torch.einsum("bmlc,mlcp->bmlp", weights, self.means.to(unit.dtype))

    @torch.no_grad()
    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """Update the prototypes of present modalities with the normalized latents, see `moving_average`.

        Latents of unknown labels, which belong to neither prototype, are left out.

        Args:
            latents: (B, M, L, P).
            labels: (B, L), 0 or 1, NaN where unknown.
            modality_mask: (B, M) bool, present = True.
        """
        positive = (labels[:, None] == 1) & modality_mask[..., None]  # (B, M, L)
        negative = (labels[:, None] == 0) & modality_mask[..., None]
        unit = F.normalize(latents.to(self.means.dtype), dim=-1)
        member = torch.stack((positive, negative), dim=-1)
        self.means.copy_(moving_average(self.means, unit, member, self.momentum))
