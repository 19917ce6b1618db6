"""MISA: modality-invariant and modality-specific vectors, fused by one Transformer layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from carat.config.baselines import MisaConfig
from carat.models.base import Model, ModelOutputs, check_heads, check_modalities
from carat.models.baselines.common import SequenceEncoder
from carat.models.layers.dropout import dropout
from carat.models.layers.masking import masked_mean, modality_mask_of
from carat.models.layers.packing import LengthGroup
from carat.models.layers.transformer import EncoderLayer
from carat.models.losses.multilabel import LabelLoss
from carat.models.losses.terms import weighted_sum


@dataclass
class MisaOutputs(ModelOutputs):
    """As `ModelOutputs`, with the vectors for the losses."""

    projected: Tensor
    """(B, M, D), projected utterance vectors."""
    shared: Tensor
    """(B, M, D), in [0, 1]: vectors of the shared encoder."""
    private: Tensor
    """(B, M, D), in [0, 1]: vectors of the private encoders."""
    modality_mask: Tensor
    """(B, M) bool, present = True; vectors of absent modalities are undefined."""


class Misa(Model):
    """Modality-invariant and modality-specific vectors, fused by one Transformer layer.

    Source: Hazarika, Zimmermann and Poria, "MISA: Modality-Invariant and -Specific Representations for
    Multimodal Sentiment Analysis", ACM Multimedia 2020. Each modality's utterance vector is projected to
    width D, and passes a shared and a private encoder (a linear layer and a sigmoid each). The 2 · M vectors
    attend to each other, are concatenated, and a two-layer perceptron yields the logits. Besides
    cross-entropy the losses are: similarity, the central moment discrepancy between the shared vectors of
    each pair of modalities; difference, soft orthogonality between shared and private and between private
    vectors; and reconstruction of the projected vector from the sum of shared and private, by one decoder.

    Design choices: utterance vectors are the mean over the steps of a Transformer encoder, where the paper
    uses bidirectional LSTMs and BERT. Each loss is averaged over the samples with the modalities it compares.
    Soft orthogonality is the mean square of the D · D products, not their sum (as in the released code, from
    memory). The target of the reconstruction is detached, because training from scratch otherwise collapses
    to the same vector for every sample. The fusion layer uses GELU. Training has at most 20 epochs, where the
    paper relies on early stopping. Absent modalities are masked in the fusion and concatenated as zeros. A
    single modality has no similarity loss.

    Not verified against the PDF: width 128, five moments, weights of the losses, dropout, heads and width of
    the fusion layer, leaky ReLU, batch size 16, learning rate 1e-4.

    Unknown labels are left out of the cross-entropy; the other losses need no labels.

    Args:
        widths, labels: see `Model`.
        config: widths, depths, dropouts and weights; the published values when None.

    Raises:
        ConfigError: a width is not divisible by its number of heads.
    """

    weight_axes = {"linear1.weight": "D 2*M*P", "classifier.weight": "L D", "classifier.bias": "L"}

    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: MisaConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        config = config or MisaConfig()
        check_modalities(widths)
        fusion, width, number = config.fusion, config.latent, len(widths)
        check_heads(width, fusion.heads, of="latent", by="fusion.heads")
        self.dropout, self.moments = config.dropout, config.moments
        self.weights = {"label": 1.0} | config.weights.model_dump()
        self.pairs = list(combinations(range(number), 2))
        self.max_length = dict.fromkeys(widths, config.encoder.max_length)
        self.encoders = nn.ModuleDict(
            {m: SequenceEncoder(d, config.hidden, config.encoder) for m, d in widths.items()}
        )
        self.projections = nn.ModuleDict(
            {
                m: nn.Sequential(nn.Linear(config.hidden, width), nn.LeakyReLU(), nn.LayerNorm(width))
                for m in widths
            }
        )
        self.shared = nn.Linear(width, width)
        self.private = nn.ModuleDict({m: nn.Linear(width, width) for m in widths})
        self.decoder = nn.Linear(width, width)
        self.fusion = EncoderLayer(width, fusion.heads, fusion.feedforward, fusion.dropout, norm_eps=1e-5)
        self.linear1 = nn.Linear(2 * number * width, number * width)
        self.classifier = nn.Linear(number * width, len(labels))
        self.label_loss = LabelLoss(len(labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> MisaOutputs:
        vectors = {
            m: self.projections[m](masked_mean(encoder(features[m], masks[m]), masks[m], dim=1))
            for m, encoder in self.encoders.items()
        }
        modality_mask = modality_mask_of(masks, vectors)
        projected = torch.stack(list(vectors.values()), dim=1)
        shared = self.shared(projected).sigmoid()
        private = torch.stack([self.private[m](x) for m, x in vectors.items()], dim=1).sigmoid()
        fused = self._fuse(torch.cat((private, shared), dim=1), modality_mask.repeat(1, 2))
        hidden = dropout(self.linear1(fused.flatten(1)), self.dropout if self.training else 0.0)
        logits = self.classifier(F.leaky_relu(hidden))
        return MisaOutputs.from_logits(
            logits, projected=projected, shared=shared, private=private, modality_mask=modality_mask
        )

    def _fuse(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Apply self-attention to vectors (B, 2 M, D) with mask (B, 2 M); zeros where absent."""
        group = LengthGroup(present, None, slice(None), full=False)
        fused = self.fusion(vectors.flatten(0, 1), [group]).view(vectors.shape)
        out: Tensor = fused * present[..., None]
        return out

    def losses(
        self,
        outputs: MisaOutputs,
        labels: Tensor,
        generator: torch.Generator | None = None,
        targets: Tensor | None = None,
    ) -> dict[str, Tensor]:
        shared, private, modality_mask = (
            outputs.shared.float(),
            outputs.private.float(),
            outputs.modality_mask,
        )
        one, other = [i for i, _ in self.pairs], [j for _, j in self.pairs]
        both = modality_mask[:, one] & modality_mask[:, other]  # (B, N)
        decoded = self.decoder(outputs.shared + outputs.private)
        terms = {
            "label": self.label_loss(outputs.logits, labels if targets is None else targets),
            "similarity": moment_discrepancy(shared[:, one], shared[:, other], both, self.moments).sum()
            / max(1, len(self.pairs)),
            "difference": orthogonality(shared, private, modality_mask).sum()
            + orthogonality(private[:, one], private[:, other], both).sum(),
            "reconstruction": masked_mean(
                (decoded - outputs.projected.detach()).square().mean(-1), modality_mask, dim=0
            ).mean(),
        }
        return terms | {"total": weighted_sum(terms, self.weights)}


def moment_discrepancy(x: Tensor, y: Tensor, present: Tensor, moments: int) -> Tensor:
    """Compute the central moment discrepancy of two sets of vectors in [0, 1] (Zellinger et al. 2017).

    Args:
        x, y: (B, N, D).
        present: (B, N), samples to include.
        moments: number of moments, including the mean.

    Returns:
        (N,), sum of the distances of the means and central moments; 0 without samples.
    """
    means = masked_mean(x, present, dim=0), masked_mean(y, present, dim=0)
    x, y = x - means[0], y - means[1]
    total: Tensor = torch.linalg.vector_norm(means[0] - means[1], dim=-1)
    for k in range(2, moments + 1):
        total = total + torch.linalg.vector_norm(
            masked_mean(x**k, present, dim=0) - masked_mean(y**k, present, dim=0), dim=-1
        )
    return total


def orthogonality(x: Tensor, y: Tensor, present: Tensor) -> Tensor:
    """Compute soft orthogonality of two sets of vectors: the mean square of their D · D products.

    Args:
        x, y: (B, N, D); centered over the included samples, then normalized to unit length.
        present: (B, N), samples to include.

    Returns:
        (N,), 0 without samples.
    """
    x, y = (
        F.normalize((z - masked_mean(z, present, dim=0)) * present[..., None], dim=-1, eps=1e-6)
        for z in (x, y)
    )  # eps keeps gradients of a single sample, which equals the mean, finite
    return torch.einsum("bpi,bpj->pij", x, y).square().mean((1, 2))
