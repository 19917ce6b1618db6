"""Replaces a model's linear layers and dropouts by fast ones for a CPU."""

from __future__ import annotations

from torch import Tensor, nn

from carat.models.layers.dropout import dropout
from carat.models.layers.linear import linear


class HostLinear(nn.Linear):
    """`nn.Linear` with the products of `carat.models.layers.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return linear(x.reshape(-1, x.shape[-1]), self.weight, self.bias).view(*x.shape[:-1], -1)


class HostDropout(nn.Module):
    """`nn.Dropout` with the random numbers of `carat.models.layers.dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return dropout(x, self.p) if self.training else x


def make_fast(model: nn.Module) -> None:
    """Replace what is slow on a CPU, in place; names, weights and results stay."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.bias is not None:
                fast = HostLinear(child.in_features, child.out_features, device="meta")
                fast.weight, fast.bias = child.weight, child.bias
                setattr(parent, name, fast)
            elif type(child) is nn.Dropout:
                setattr(parent, name, HostDropout(child.p))
