"""Contrastive latent space: encoder En_m and decoder De_m of each modality."""

from __future__ import annotations

from torch import Tensor, nn

from carat.models.layers.modality_linear import ModalityMLP


class Latent(nn.Module):
    """MLPs En: D → D/2 → P and De: P → D/2 → D with ReLU in between and separate weights per modality.

    Args:
        modalities: M.
        hidden: D.
        latent: P.
    """

    def __init__(self, modalities: int, hidden: int, latent: int) -> None:
        super().__init__()
        self.encoder = ModalityMLP(modalities, hidden, hidden // 2, latent)
        self.decoder = ModalityMLP(modalities, latent, hidden // 2, hidden)

    def encode(self, features: Tensor) -> Tensor:
        """(B, M, L, D) → (B, M, L, P)."""
        out: Tensor = self.encoder(features)
        return out

    def decode(self, latents: Tensor) -> Tensor:
        """(B, M, L, P) → (B, M, L, D)."""
        out: Tensor = self.decoder(latents)
        return out
