"""CPU kernels for the linear layers and dropouts of models from transformers."""

from __future__ import annotations

from torch import Tensor, nn

from carat.models.layers.dropout import dropout
from carat.models.layers.linear import linear


class CPULinear(nn.Linear):
    """`nn.Linear` that uses `carat.models.layers.linear`."""

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        return linear(x.reshape(-1, x.shape[-1]), self.weight, self.bias).view(*x.shape[:-1], -1)


class CPUDropout(nn.Module):
    """`nn.Dropout` that uses `carat.models.layers.dropout`."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Any shape."""
        return dropout(x, self.p) if self.training else x


def use_cpu_kernels(model: nn.Module) -> None:
    """Replace every `nn.Linear` with bias by `CPULinear` and every `nn.Dropout` by `CPUDropout`, in place.

    Parameters and their names stay the same. On other devices both fall back to PyTorch's own kernels.
    """
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear and child.bias is not None:
                replacement = CPULinear(child.in_features, child.out_features, device="meta")
                replacement.weight, replacement.bias = child.weight, child.bias
                setattr(parent, name, replacement)
            elif type(child) is nn.Dropout:
                setattr(parent, name, CPUDropout(child.p))
