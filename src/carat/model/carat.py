"""CARAT's network: wires the rooms beside it together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carat.model.aggregation import Aggregation
from carat.model.alignment import Alignment
from carat.model.encoder import Encoder
from carat.model.label_attention import LabelAttention
from carat.model.latent import Latent
from carat.model.prototypes import Prototypes
from carat.model.reconstruction import Reconstruction


@dataclass
class CaratOutputs:
    """What one forward pass yields. Absent modalities are False in `presence`; their slots are to be ignored.

    The three feature levels are original, α and β; M follows the order of the model's modalities.
    """

    presence: Tensor
    """(B, M) bool."""
    features: Tensor
    """(B, 3, M, L, D): u, u_α, u_β."""
    decoded: Tensor
    """(B, M, L, D): ũ."""
    latents: Tensor
    """(B, 3, M, L, P): the three levels through En_m."""
    logits: Tensor
    """(B, 3, M, L): ⟨feature, label classifier⟩."""
    aggregated: Tensor
    """(B, M, L): logits of the joint classification."""
    scores: Tensor
    """(B, L), in [0, 1]."""
    carried_by: Tensor
    """(B, L) index of the present modality whose β logit is the largest."""


class Carat(nn.Module):
    """Label-specific features, contrastive reconstruction, aggregation (Peng et al., AAAI 2024).

    Args:
        widths: d by modality, in the order of the M axis.
        labels: L.
        hidden: D.
        latent: P.
        layers: encoder layers by modality.
        heads, feedforward, dropout, max_length, norm_eps: see `Encoder`.
        momentum: see `Prototypes`.
        align: modalities to align first.
        steps: time steps after alignment.
    """

    def __init__(
        self,
        widths: Mapping[str, int],
        labels: int,
        *,
        hidden: int,
        latent: int,
        layers: Mapping[str, int],
        heads: int,
        feedforward: int,
        dropout: float,
        max_length: int,
        norm_eps: float,
        momentum: float,
        align: frozenset[str] = frozenset(),
        steps: int = 50,
    ) -> None:
        super().__init__()
        self.hidden = hidden
        self.labels = labels
        self.input_norm = nn.ModuleDict({m: nn.LayerNorm(d, eps=norm_eps) for m, d in widths.items()})
        self.alignment = nn.ModuleDict({m: Alignment(d, steps) for m, d in widths.items() if m in align})
        self.encoder = nn.ModuleDict(
            {
                m: Encoder(d, hidden, layers[m], heads, feedforward, dropout, max_length, norm_eps)
                for m, d in widths.items()
            }
        )
        self.label_attention = nn.ModuleDict({m: LabelAttention(hidden, labels) for m in widths})
        self.latent = Latent(len(widths), hidden, latent)
        self.prototypes = Prototypes(len(widths), labels, latent, momentum)
        self.reconstruction = Reconstruction(len(widths), hidden)
        self.classifier = nn.Parameter(torch.empty(len(widths), labels, hidden))
        self.aggregation = Aggregation(hidden, labels)
        for weight in self.classifier:
            nn.init.kaiming_uniform_(weight, a=5**0.5)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> CaratOutputs:
        """Score a batch.

        Args:
            features: (B, T_m, d_m) by modality; padding is ignored.
            masks: (B, T_m) by modality, valid = True; a sample may lack modalities, but not all.
        """
        presence = torch.stack([masks[m].any(1) for m in self.encoder], dim=1)  # (B, M)
        original = torch.stack([self._label_features(m, features[m], masks[m]) for m in self.encoder], 1)
        latent = self.latent.encode(original)
        stand_in = self.latent.decode(self.prototypes.stand_in(latent, presence))
        decoded = torch.where(presence[..., None, None], self.latent.decode(latent), stand_in)
        alpha = self.reconstruction.first(decoded, stand_in)
        beta = self.reconstruction.second(alpha)
        levels = torch.stack((original, alpha, beta), dim=1)  # (B, 3, M, L, D)
        latents = torch.stack((latent, self.latent.encode(alpha), self.latent.encode(beta)), dim=1)
        logits = torch.einsum("bkmld,mld->bkml", levels, self.classifier)
        aggregated = self.aggregation(beta)
        strongest, carried_by = max_over_present(logits[:, 2], presence)
        scores = (strongest.sigmoid() + mean_over_present(aggregated.sigmoid(), presence)) / 2
        return CaratOutputs(presence, levels, decoded, latents, logits, aggregated, scores, carried_by)

    def _label_features(self, modality: str, x: Tensor, mask: Tensor) -> Tensor:
        """(B, L, D), zeros where the modality is absent: only samples that have it are encoded."""
        rows = mask.any(1)
        out = x.new_zeros(len(x), self.labels, self.hidden)
        if not rows.any():
            return out
        longest = int(mask.nonzero()[:, 1].max()) + 1
        x, mask = x[rows, :longest], mask[rows, :longest]
        x = self.input_norm[modality](x)
        if modality in self.alignment:
            x, mask = self.alignment[modality](x, mask)
        hidden = self.encoder[modality](x, mask)
        attended = self.label_attention[modality](hidden, mask)
        return out.to(attended.dtype).index_put((rows,), attended)


def max_over_present(logits: Tensor, presence: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit over the present modalities and which one it is: (B, M, L), (B, M) → twice (B, L)."""
    strongest = logits.masked_fill(~presence[..., None], float("-inf")).max(dim=1)
    return strongest.values, strongest.indices


def mean_over_present(values: Tensor, presence: Tensor) -> Tensor:
    """Mean over the present modalities: (B, M, L), (B, M) → (B, L)."""
    weights = presence[..., None].to(values.dtype)
    return (values * weights).sum(1) / weights.sum(1)
