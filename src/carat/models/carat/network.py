"""The CARAT network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from carat.config.carat import CaratConfig
from carat.models.carat.aggregation import Aggregation
from carat.models.carat.alignment import Alignment
from carat.models.carat.label_attention import LabelAttention
from carat.models.carat.latent import Latent
from carat.models.carat.prototypes import OwnLatent, Prototypes
from carat.models.carat.reconstruction import Reconstruction
from carat.models.layers.masking import masked_max, masked_mean, modality_mask_of
from carat.models.layers.packing import pack_batch
from carat.models.layers.transformer import Encoder


@dataclass
class CaratOutputs:
    """Outputs of CARAT; values of absent modalities are undefined.

    K is the number of feature levels: original, α and β, or fewer with fewer levels of reconstruction. The
    last level determines the scores.
    """

    modality_mask: Tensor
    """(B, M) bool, present = True."""
    features: Tensor
    """(B, K, M, L, D): u, u_α, u_β."""
    decoded: Tensor
    """(B, M, L, D): ũ."""
    latents: Tensor
    """(B, K, M, L, P): latents En_m of all levels."""
    logits: Tensor
    """(B, K, M, L): ⟨feature, label classifier⟩."""
    aggregated: Tensor | None
    """(B, M, L): logits of the joint classification; None without aggregation."""
    scores: Tensor
    """(B, L), in [0, 1]."""
    attribution: Tensor
    """(B, L), index of the present modality with the largest logit of the last level."""


class CaratNetwork(nn.Module):
    """Label-specific features, contrastive reconstruction, aggregation (Peng et al., AAAI 2024).

    Args:
        widths: d by modality, in the order of the M axis.
        num_labels: L.
        config: widths D (`hidden`) and P (`latent`), depths, and enabled components.
    """

    def __init__(self, widths: Mapping[str, int], num_labels: int, config: CaratConfig) -> None:
        super().__init__()
        encoder, align = config.encoder, config.alignment
        hidden, latent, identity_init = config.hidden, config.latent, config.identity_init
        self.hidden, self.num_labels = hidden, num_labels
        self.score_original = (
            config.score_original and config.levels > 0
        )  # otherwise the last level is the original
        self.input_norm = nn.ModuleDict({m: nn.LayerNorm(d, eps=encoder.norm_eps) for m, d in widths.items()})
        self.alignment = nn.ModuleDict(
            {m: Alignment(d, align.steps) for m, d in widths.items() if m in align.modalities}
        )
        self.encoder = nn.ModuleDict(
            {
                m: Encoder(
                    d,
                    hidden,
                    encoder.num_layers(m),
                    encoder.heads,
                    encoder.feedforward,
                    encoder.dropout,
                    encoder.positions(m),
                    encoder.norm_eps,
                    encoder.pooler,
                    identity_init,
                )
                for m, d in widths.items()
            }
        )
        self.label_attention = nn.ModuleDict(
            {m: LabelAttention(hidden, num_labels, config.label_wise, identity_init) for m in widths}
        )
        self.latent = Latent(len(widths), hidden, latent)
        self.prototypes = (
            Prototypes(len(widths), num_labels, latent, config.momentum) if config.prototypes else OwnLatent()
        )
        self.reconstruction = Reconstruction(len(widths), hidden, config.levels)
        self.classifier = nn.Parameter(torch.empty(len(widths), num_labels, hidden))
        self.aggregation = Aggregation(hidden, num_labels) if config.aggregation else None
        for weight in self.classifier:
            nn.init.kaiming_uniform_(weight, a=5**0.5)

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> CaratOutputs:
        """Score a batch.

        Args:
            features: (B, T_m, d_m) by modality; padding is ignored.
            masks: (B, T_m) by modality, valid = True; a sample may lack modalities, but not all.
        """
        return self.fuse(*self.represent(features, masks))

    def score(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute only the scores and attribution of `forward`."""
        original, modality_mask = self.represent(features, masks)
        *_, rebuilt = self.rebuild(original, modality_mask)
        last = rebuilt[-1] if rebuilt else original
        levels = torch.stack((original, last) if self.score_original else (last,), dim=1)
        _, scores, attribution = self.classify(levels, self.label_logits(levels), modality_mask)
        return scores, attribution

    def represent(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute label-specific features u (B, M, L, D) and the modality mask (B, M)."""
        modality_mask = modality_mask_of(masks, self.encoder)
        original = torch.stack([self.attend(m, features[m], masks[m])[0] for m in self.encoder], dim=1)
        return original, modality_mask

    def attend(self, modality: str, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Compute label-specific features of one modality, zeros where it is absent.

        Args:
            modality: name of the modality.
            x: (B, T, d).
            mask: (B, T), valid = True.

        Returns:
            Features u (B, L, D) and the attention A (B, L, T'); T' is the length of the longest
            sample, or the number of aligned steps.
        """
        batch, packed = x.shape[0], pack_batch(mask)
        x, mask = packed.select(x), packed.whole.mask
        if not mask.numel():
            return x.new_zeros(batch, self.num_labels, self.hidden), x.new_zeros(batch, self.num_labels, 0)
        x, within = self.input_norm[modality](x), packed
        if modality in self.alignment:
            x, mask = self.alignment[modality](x, mask)
            within = pack_batch(mask)
        hidden = self.encoder[modality](x, within)
        attended, weights = self.label_attention[modality](hidden, mask)
        return packed.restore(attended, batch), packed.restore(weights, batch)

    def fuse(self, original: Tensor, modality_mask: Tensor) -> CaratOutputs:
        """Reconstruct, classify and aggregate label-specific features.

        Args:
            original: (B, M, L, D), features u.
            modality_mask: (B, M), present = True.
        """
        latent, decoded, rebuilt = self.rebuild(original, modality_mask)
        levels = torch.stack((original, *rebuilt), dim=1)  # (B, K, M, L, D)
        latents = torch.stack((latent, *map(self.latent.encode, rebuilt)), dim=1)
        logits = self.label_logits(levels)
        aggregated, scores, attribution = self.classify(levels, logits, modality_mask)
        return CaratOutputs(modality_mask, levels, decoded, latents, logits, aggregated, scores, attribution)

    def rebuild(self, original: Tensor, modality_mask: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Compute latents (B, M, L, P), decoded ũ (B, M, L, D) and reconstructed levels (B, M, L, D)."""
        latent = self.latent.encode(original)
        stand_in = self.latent.decode(self.prototypes.stand_in(latent, modality_mask))
        decoded = torch.where(modality_mask[..., None, None], self.latent.decode(latent), stand_in)
        return latent, decoded, self.reconstruction(decoded, stand_in)

    def label_logits(self, levels: Tensor) -> Tensor:
        """⟨feature, label classifier⟩: (B, K, M, L, D) → (B, K, M, L)."""
        return torch.einsum("bkmld,mld->bkml", levels, self.classifier)

    def classify(
        self, levels: Tensor, logits: Tensor, modality_mask: Tensor
    ) -> tuple[Tensor | None, Tensor, Tensor]:
        """Compute joint logits (B, M, L), scores and attribution (B, L).

        Args:
            levels: (B, K, M, L, D), features of all levels.
            logits: (B, K, M, L), logits of all levels.
            modality_mask: (B, M), present = True.
        """
        strongest, attribution = masked_max(logits[:, -1], modality_mask)
        scores, aggregated = [strongest.sigmoid()], None
        if self.aggregation is not None:
            aggregated = self.aggregation(levels[:, -1])
            scores.append(masked_mean(aggregated.sigmoid(), modality_mask, dim=1))
        if self.score_original:
            scores.append(masked_max(logits[:, 0], modality_mask)[0].sigmoid())
        return aggregated, torch.stack(scores).mean(0), attribution
