"""Linear layers and MLPs with separate weights per modality, computed as batched matrix products."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ModalityLinear(nn.Module):
    """One linear layer per modality: (B, M, …, in) → (B, M, …, out).

    Weights are initialized Xavier-uniformly, biases as in `torch.nn.Linear`.

    Args:
        modalities: M.
        in_features: input width.
        out_features: output width.
    """

    def __init__(self, modalities: int, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(modalities, in_features, out_features))
        self.bias = nn.Parameter(torch.empty(modalities, out_features))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.uniform_(self.bias, -1 / math.sqrt(in_features), 1 / math.sqrt(in_features))

    def forward(self, x: Tensor) -> Tensor:
        batch, modalities, *inner, _ = x.shape
        rows = x.transpose(0, 1).reshape(modalities, -1, x.shape[-1])  # (M, B·…, in)
        out = torch.baddbmm(self.bias[:, None], rows, self.weight)
        return out.reshape(modalities, batch, *inner, -1).transpose(0, 1)


class ModalityMLP(nn.Module):
    """Two `ModalityLinear` layers with a ReLU in between: (B, M, …, in) → (B, M, …, out).

    Args:
        modalities: M.
        in_features: input width.
        hidden_features: width between the layers.
        out_features: output width.
    """

    def __init__(self, modalities: int, in_features: int, hidden_features: int, out_features: int) -> None:
        super().__init__()
        self.first = ModalityLinear(modalities, in_features, hidden_features)
        self.second = ModalityLinear(modalities, hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.relu(self.first(x)))
        return out
