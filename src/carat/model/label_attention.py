"""Label-wise attention: each label looks at a sequence in its own way."""

from __future__ import annotations

from torch import Tensor, nn


def attend(hidden: Tensor, logits: Tensor, mask: Tensor) -> Tensor:
    """Average hidden states over valid time, with one set of weights per label.

    Args:
        hidden: (B, T, D).
        logits: (B, T, L), one column per label.
        mask: (B, T), valid = True, one valid step at least in every row.

    Returns:
        Label-specific features (B, L, D).
    """
    weights = logits.masked_fill(~mask[..., None], float("-inf")).softmax(dim=1)
    return weights.transpose(1, 2) @ hidden


class LabelAttention(nn.Module):
    """u = softmax over time of (W h) · h, W (L, D) without bias (paper, label-specific representation)."""

    def __init__(self, hidden: int, labels: int) -> None:
        super().__init__()
        self.score = nn.Linear(hidden, labels, bias=False)
        nn.init.xavier_uniform_(self.score.weight)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return attend(hidden, self.score(hidden), mask)
