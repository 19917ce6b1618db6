"""Reconstruction of each modality from the others: first level α, second level β."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from carat.models.layers.modality_linear import ModalityLinear


class Reconstruction(nn.Module):
    """One linear layer M·D → D per target modality, used at both levels.

    Args:
        modalities: M.
        hidden: D.
        levels: number of levels: 2 for u_α and u_β, 1 for u_α only, 0 for none.
    """

    def __init__(self, modalities: int, hidden: int, levels: int = 2) -> None:
        super().__init__()
        self.levels = levels
        self.rebuild = ModalityLinear(modalities, modalities * hidden, hidden)

    def forward(self, decoded: Tensor, stand_in: Tensor) -> list[Tensor]:
        """Features of all levels, (B, M, L, D) each, see `first` for the arguments."""
        levels = [self.first(decoded, stand_in)] if self.levels else []
        return [*levels, self.second(levels[0])] if self.levels > 1 else levels

    def first(self, decoded: Tensor, stand_in: Tensor) -> Tensor:
        """Reconstruct u_α of every modality from the other modalities and its own stand-in.

        A single modality is reconstructed from its own decoded latent. From its stand-in alone, as in the
        paper's definition, nothing but the choice of prototype would reach u_β at inference.

        Args:
            decoded: decoded latents ũ (B, M, L, D).
            stand_in: decoded stand-ins v (B, M, L, D).

        Returns:
            (B, M, L, D).
        """
        if decoded.shape[1] == 1:
            return self._rebuild(decoded[:, None])
        own = torch.eye(decoded.shape[1], dtype=torch.bool, device=decoded.device)[:, :, None, None]
        sources = torch.where(own, stand_in[:, None], decoded[:, None])  # (B, M target, M source, L, D)
        return self._rebuild(sources)

    def second(self, alpha: Tensor) -> Tensor:
        """Reconstruct u_β of every modality from u_α of all modalities: (B, M, L, D) → (B, M, L, D)."""
        return self._rebuild(alpha[:, None].expand(-1, alpha.shape[1], -1, -1, -1))

    def _rebuild(self, sources: Tensor) -> Tensor:
        out: Tensor = self.rebuild(sources.transpose(2, 3).flatten(3))  # (B, M, L, M·D)
        return out
