"""Joint classification of all labels, and shuffling of label features for more label combinations."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Aggregation(nn.Module):
    """MLP g: L·D → D → L over the concatenated label features, shared by all modalities.

    Args:
        hidden: D.
        labels: L.
    """

    def __init__(self, hidden: int, labels: int) -> None:
        super().__init__()
        self.first = nn.Linear(labels * hidden, hidden)
        self.second = nn.Linear(hidden, labels)
        for linear in (self.first, self.second):
            nn.init.xavier_uniform_(linear.weight)

    def forward(self, features: Tensor) -> Tensor:
        """(B, M, L, D) → logits (B, M, L)."""
        out: Tensor = self.second(F.relu(self.first(features.flatten(2))))
        return out


def permute_within(
    valid: Tensor, generator: torch.Generator | None = None, apart: Tensor | None = None
) -> Tensor:
    """Random permutations along the last axis that permute valid and invalid positions separately.

    Args:
        valid: (…, N) bool.
        generator: random number generator on the device of `valid`; None: the global one.
        apart: (…, N) bool, valid positions that are permuted among themselves; None: there are none.

    Returns:
        (…, N) indices, a permutation in every row.
    """
    groups = (~valid).to(torch.uint8)
    if apart is not None:
        groups = torch.where(valid & apart, 2, groups)
    keys = torch.rand(valid.shape, generator=generator, device=valid.device)
    shuffled = (keys + 2 * groups).argsort(-1)  # groups in order, each in random order
    ordered = groups.argsort(dim=-1, stable=True)  # groups in order
    return torch.empty_like(shuffled).scatter_(-1, ordered, shuffled)


def draw_shuffle(
    modality_mask: Tensor,
    labels: int,
    generator: torch.Generator | None = None,
    *,
    known: Tensor | None = None,
    over_samples: bool = True,
    over_modalities: bool = True,
) -> tuple[Tensor, Tensor]:
    """Draw permutations of label features over samples and over modalities.

    Features are permuted over samples for each (modality, label), then over modalities for each (sample,
    label). Features of absent modalities, and of present ones whose label is unknown, are permuted among
    themselves, so that they never take the place of the others.

    Args:
        modality_mask: (B, M) bool, present = True.
        labels: L.
        generator: random number generator on the device of `modality_mask`; None: the global one.
        known: (B, L) bool, which labels are known; None: all.
        over_samples: permute over samples.
        over_modalities: permute over modalities.

    Returns:
        Sample indices and modality indices, (B, M, L) each, to be applied in this order.
    """
    by_label = modality_mask[:, :, None].expand(-1, -1, labels)  # (B, M, L)
    unknown = torch.zeros_like(by_label) if known is None else ~known[:, None].expand_as(by_label)
    samples, modalities = (
        torch.arange(size, device=modality_mask.device).view(shape).expand_as(by_label)
        for size, shape in zip(modality_mask.shape, ((-1, 1, 1), (1, -1, 1)), strict=True)
    )
    if over_samples:
        axes = (1, 2, 0)
        samples = permute_within(by_label.permute(axes), generator, unknown.permute(axes)).permute(2, 0, 1)
    if over_modalities:
        axes = (0, 2, 1)
        modalities = permute_within(by_label.permute(axes), generator, unknown.permute(axes)).permute(axes)
    return samples, modalities


def gather_jointly(values: Tensor, samples: Tensor, modalities: Tensor) -> Tensor:
    """Index by sample and modality in a single gather, as in the released code.

    The result is not a permutation: some features occur twice, others never. It may include reconstructed
    features of absent modalities.

    Args:
        values: (B, M, L) or (B, M, L, D).
        samples, modalities: see `draw_shuffle`.
    """
    return values[samples, modalities, torch.arange(values.shape[2], device=values.device)]


def apply_shuffle(values: Tensor, samples: Tensor, modalities: Tensor) -> Tensor:
    """Permute over samples, then over modalities.

    Args:
        values: (B, M, L) or (B, M, L, D).
        samples, modalities: see `draw_shuffle`.
    """
    if values.ndim == 4:
        samples, modalities = (index[..., None].expand_as(values) for index in (samples, modalities))
    return values.gather(0, samples).gather(1, modalities)
