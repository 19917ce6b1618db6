"""Class prototypes: two latents for each (modality, label), of samples with and without the label."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class StandIn(nn.Module, ABC):
    """Replaces a modality's own latent in its reconstruction."""

    @abstractmethod
    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        """Latents (B, M, L, P), modality mask (B, M) → (B, M, L, P)."""

    @abstractmethod
    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """Update by a batch: latents (B, M, L, P), labels (B, L), modality mask (B, M)."""


class OwnLatent(StandIn):
    """No substitution; absent modalities are zero."""

    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        return latents * modality_mask[..., None, None]

    def update(self, latents: Tensor, labels: Tensor, modality_mask: Tensor) -> None:
        """There is no state."""


def moving_average(means: Tensor, values: Tensor, member: Tensor, momentum: float) -> Tensor:
    """Exponential moving averages over the batch, sample by sample in order, in closed form.

    ``mean ← momentum · mean + (1 − momentum) · value`` for each sample that belongs to the class, which
    after n members is ``momentumⁿ · mean + (1 − momentum) Σᵢ momentumⁿ⁻ⁱ · valueᵢ``.

    Args:
        means: (M, L, 2, P).
        values: (B, M, L, P).
        member: (B, M, L, 2), whether the sample's value belongs to the class.
        momentum: weight of the old mean at each update.

    Returns:
        New means (M, L, 2, P).
    """
    count = member.to(values.dtype).cumsum(0)
    later = count[-1] - count  # members of the same class that follow in the batch
    weights = (1 - momentum) * momentum**later * member
    return momentum ** count[-1, ..., None] * means + torch.einsum("bmlc,bmlp->mlcp", weights, values)


class Prototypes(StandIn):
    """Prototypes μ⁺, μ⁻ in the latent space, as buffers that start at 0.

    Args:
        modalities: M.
        labels: L.
        latent: P.
        momentum: weight of the old prototype at each update (.99 in the paper).
    """

    means: Tensor

    def __init__(self, modalities: int, labels: int, latent: int, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("means", torch.zeros(modalities, labels, 2, latent))  # μ⁺, then μ⁻

    def stand_in(self, latents: Tensor, modality_mask: Tensor) -> Tensor:
        """A mixture of prototypes.

        In training μ⁺ and μ⁻ weighted by the softmax of the similarities, at inference the more similar of
        the two; for an absent modality the mean of both.

        Args:
            latents: (B, M, L, P).
            modality_mask: (B, M), present = True.

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
        """Move the prototypes towards a batch: latents (B, M, L, P), labels (B, L), modality mask (B, M)."""
        positive = labels[:, None].bool() & modality_mask[..., None]  # (B, M, L)
        negative = ~labels[:, None].bool() & modality_mask[..., None]
        unit = F.normalize(latents.to(self.means.dtype), dim=-1)
        member = torch.stack((positive, negative), dim=-1)
        self.means.copy_(moving_average(self.means, unit, member, self.momentum))
