"""Losses over the known labels. Targets are from 0 to 1, or NaN where a label is unknown.

A loss that does not handle unknown labels becomes NaN, which stops the training; none takes them as absent.
"""

from __future__ import annotations

import torch
from torch import Tensor

from carat.models.layers.masking import masked_mean


def split_targets(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Split targets into labels without NaN and what is known of them.

    Masking a loss of NaN is not enough, because its gradient is NaN: it needs labels without NaN.

    Args:
        targets: (…, L), in [0, 1], NaN where unknown.

    Returns:
        Targets (…, L), 0 where unknown, and which of them are known (…, L), bool.

    >>> split_targets(torch.tensor([1.0, float("nan")]))
    (tensor([1., 0.]), tensor([ True, False]))
    """
    known = ~targets.isnan()
    return torch.where(known, targets, 0), known


def known_mean(losses: Tensor, known: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean over the known labels of the valid rows.

    It is the mean over all labels, times the ratio of all labels to known ones. The ratio is exactly 1 if all
    are known, so that unknown labels cost neither a branch nor a rounding error there.

    Args:
        losses: (…, L), finite.
        known: (…, L) bool.
        valid: (…) bool; None: all rows.

    Returns:
        Scalar; 0 if none is known.

    >>> known_mean(torch.tensor([[2.0, 4.0], [6.0, 9.0]]), torch.tensor([[True, True], [True, False]]))
    tensor(4.)
    """
    mean = masked_mean(losses.masked_fill(~known, 0).mean(-1), valid)
    if valid is None:
        counted = known.sum()
        every = torch.full_like(counted, known.numel())  # not a number, which is multiplied by 1 / counted
    else:
        counted = (known & valid[..., None]).sum()
        every = known.shape[-1] * valid.sum()
    return mean * (every.to(mean.dtype) / counted.clamp(min=1))
