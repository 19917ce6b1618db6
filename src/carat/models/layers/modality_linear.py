"""Linear layers and MLPs with separate weights per modality, computed as one batched product."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ModalityLinear(nn.Module):
    """One Linear per modality: (B, M, …, in) → (B, M, …, out).

    Weights are Xavier-uniform, biases as `torch.nn.Linear` draws them.

    Args:
        modalities: M.
        wide_in: input width.
        wide_out: output width.
    """

    def __init__(self, modalities: int, wide_in: int, wide_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(modalities, wide_in, wide_out))
        self.bias = nn.Parameter(torch.empty(modalities, wide_out))
        for weight in self.weight:
            nn.init.xavier_uniform_(weight)
        nn.init.uniform_(self.bias, -1 / math.sqrt(wide_in), 1 / math.sqrt(wide_in))

    def forward(self, x: Tensor) -> Tensor:
        batch, modalities, *between, _ = x.shape
        rows = x.transpose(0, 1).reshape(modalities, -1, x.shape[-1])  # (M, B·…, in)
        out = torch.baddbmm(self.bias[:, None], rows, self.weight)
        return out.reshape(modalities, batch, *between, -1).transpose(0, 1)


class ModalityMLP(nn.Module):
    """Two `ModalityLinear` with a ReLU between: (B, M, …, in) → (B, M, …, out)."""

    def __init__(self, modalities: int, wide_in: int, middle: int, wide_out: int) -> None:
        super().__init__()
        self.first = ModalityLinear(modalities, wide_in, middle)
        self.second = ModalityLinear(modalities, middle, wide_out)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(F.relu(self.first(x)))
        return out
