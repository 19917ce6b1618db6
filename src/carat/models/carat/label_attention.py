"""Label-wise attention pooling: one feature of a sequence per label."""

from __future__ import annotations

from torch import Tensor, nn


def attention_weights(logits: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the valid time steps.

    Args:
        logits: (B, T, L).
        mask: (B, T) bool, at least one valid step (True) per sample.

    Returns:
        (B, L, T), zeros at padding.
    """
    return logits.masked_fill(~mask[..., None], float("-inf")).softmax(dim=1).transpose(1, 2)


class LabelAttention(nn.Module):
    """Attention A = softmax(W h) over time, label-specific features u = A h.

    Args:
        hidden: D.
        labels: L.
        label_wise: W is (L, D), one row per label; if False it is (1, D), shared by all labels.
        identity_init: initialize W with 0, so that features start as the mean over time; if False,
            Xavier-uniformly.

    Source: Peng et al. 2024, label-specific representation.
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
        """Pool hidden states.

        Args:
            hidden: (B, T, D).
            mask: (B, T) bool, at least one valid step (True) per sample.

        Returns:
            Label-specific features (B, L, D) and attention weights (B, L, T).
        """
        weights = attention_weights(self.score(hidden), mask).expand(-1, self.labels, -1)
        return weights @ hidden, weights
