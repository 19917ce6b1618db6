"""Label-wise attention over time."""

from __future__ import annotations

from torch import Tensor, nn


def attention_weights(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over valid time: logits (B, T, L), mask (B, T) with one valid step per row → (B, L, T)."""
    return logits.masked_fill(~mask[..., None], float("-inf")).softmax(dim=1).transpose(1, 2)


class LabelAttention(nn.Module):
    """A = softmax over time of (W h), u = A h (paper, label-specific representation).

    Args:
        hidden: D.
        labels: L.
        label_wise: W is (L, D), one row per label; else one row that all labels share.
        identity_init: W starts at 0, so that every label starts with the mean over time; else it is random.
    """

    def __init__(
        self, hidden: int, labels: int, label_wise: bool = True, identity_init: bool = False
    ) -> None:
        super().__init__()
        self.labels = labels
        self.score = nn.Linear(hidden, labels if label_wise else 1, bias=False)
        nn.init.xavier_uniform_(self.score.weight)
        if identity_init:
            nn.init.zeros_(self.score.weight)

    def forward(self, hidden: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (B, T, D), mask (B, T) → label-specific features (B, L, D) and attention (B, L, T)."""
        weights = attention_weights(self.score(hidden), mask).expand(-1, self.labels, -1)
        return weights @ hidden, weights
