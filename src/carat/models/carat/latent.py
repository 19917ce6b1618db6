"""The contrastive latent space: En_m and De_m, one pair of MLPs per modality."""

from __future__ import annotations

from torch import Tensor, nn

from carat.models.layers.modality_linear import ModalityMLP


class Latent(nn.Module):
    """En: D → D/2 → P and De: P → D/2 → D, ReLU between, with weights per modality.

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
