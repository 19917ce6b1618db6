"""Reconstruction of each modality from the others: first level α, second level β."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from carat.models.layers.modality_linear import ModalityLinear


class Reconstruction(nn.Module):
    """One Linear M·D → D per target modality, used at both levels.

    Args:
        modalities: M.
        hidden: D.
        levels: 2 gives u_α and u_β, 1 only u_α, 0 nothing.
    """

    def __init__(self, modalities: int, hidden: int, levels: int = 2) -> None:
        super().__init__()
        self.levels = levels
        self.rebuild = ModalityLinear(modalities, modalities * hidden, hidden)

    def forward(self, decoded: Tensor, stand_in: Tensor) -> list[Tensor]:
        """The levels, each (B, M, L, D), from ũ and v, (B, M, L, D) each."""
        rebuilt = [self.first(decoded, stand_in)] if self.levels else []
        return [*rebuilt, self.second(rebuilt[0])] if self.levels > 1 else rebuilt

    def first(self, decoded: Tensor, stand_in: Tensor) -> Tensor:
        """u_α: every modality from the others' decoded latents and its own stand-in.

        A single modality has no others and is reconstructed from its own decoded latent. By the paper's
        definition only its stand-in would be left, and β would depend on nothing but the chosen prototypes.

        Args:
            decoded: ũ (B, M, L, D).
            stand_in: v (B, M, L, D).

        Returns:
            (B, M, L, D).
        """
        if decoded.shape[1] == 1:
            return self._rebuild(decoded[:, None])
        own = torch.eye(decoded.shape[1], dtype=torch.bool, device=decoded.device)[:, :, None, None]
        sources = torch.where(own, stand_in[:, None], decoded[:, None])  # (B, M target, M source, L, D)
        return self._rebuild(sources)

    def second(self, alpha: Tensor) -> Tensor:
        """u_β: every modality from all first-level features: (B, M, L, D) → (B, M, L, D)."""
        return self._rebuild(alpha[:, None].expand(-1, alpha.shape[1], -1, -1, -1))

    def _rebuild(self, sources: Tensor) -> Tensor:
        out: Tensor = self.rebuild(sources.transpose(2, 3).flatten(3))  # (B, M, L, M·D)
        return out
