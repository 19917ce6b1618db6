"""Joint classification of all labels, and the shuffle of label features that augments it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Aggregation(nn.Module):
    """g: MLP L·D → D → L over the concatenated label features, shared by the modalities."""

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


def permute_within(valid: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Random permutations along the last axis that do not mix valid and other places.

    Args:
        valid: (…, N) bool.
        generator: source of randomness, on the device of `valid`.

    Returns:
        (…, N) indices; in every row a bijection that maps valid places onto valid places.
    """
    keys = torch.rand(valid.shape, generator=generator, device=valid.device)
    order = (keys + 2 * ~valid).argsort(-1)  # the valid places in random order, then the others
    home = (~valid).to(torch.uint8).argsort(dim=-1, stable=True)  # the valid places in order, then the others
    return torch.empty_like(order).scatter_(-1, home, order)


def draw_shuffle(
    modality_mask: Tensor,
    labels: int,
    generator: torch.Generator | None = None,
    *,
    over_samples: bool = True,
    over_modalities: bool = True,
) -> tuple[Tensor, Tensor]:
    """Draw a shuffle of label features: over samples for each (modality, label), then over modalities.

    Only present modalities are shuffled, so that no features of absent ones are mixed in.

    Args:
        modality_mask: (B, M), present = True.
        labels: L.
        generator: source of randomness, on the device of `modality_mask`.
        over_samples, over_modalities: False leaves that axis as it is.

    Returns:
        Sample index (B, M, L) and modality index (B, M, L); each is a bijection along its axis.
    """
    by_label = modality_mask[:, :, None].expand(-1, -1, labels)  # (B, M, L)
    samples, modalities = (
        torch.arange(size, device=modality_mask.device).view(shape).expand_as(by_label)
        for size, shape in zip(modality_mask.shape, ((-1, 1, 1), (1, -1, 1)), strict=True)
    )
    if over_samples:
        samples = permute_within(by_label.permute(1, 2, 0), generator).permute(2, 0, 1)
    if over_modalities:
        modalities = permute_within(by_label.transpose(1, 2), generator).transpose(1, 2)
    return samples, modalities


def gather_jointly(values: Tensor, samples: Tensor, modalities: Tensor) -> Tensor:
    """Index (B, M, L) or (B, M, L, D) by sample and modality at once, as the released code does.

    Not a bijection: some entries are gathered twice and some never. Where modalities are absent, a
    reconstructed feature of an absent one may be gathered.
    """
    return values[samples, modalities, torch.arange(values.shape[2], device=values.device)]


def apply_shuffle(values: Tensor, samples: Tensor, modalities: Tensor) -> Tensor:
    """Permute (B, M, L) or (B, M, L, D) over samples, then over modalities, by indices of `draw_shuffle`."""
    if values.ndim == 4:
        samples, modalities = (index[..., None].expand_as(values) for index in (samples, modalities))
    return values.gather(0, samples).gather(1, modalities)
