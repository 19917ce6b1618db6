"""oneDNN products equal those of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn import functional as F

from carat.models.layers.linear import linear
from carat.utils import device as room
from carat.utils.device import product


@pytest.fixture(autouse=True)
def _small_products_count_too(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(room, "MIN_MULTIPLICATIONS", 0)
    room._onednn_is_faster.cache_clear()
    yield
    room._onednn_is_faster.cache_clear()


@pytest.mark.parametrize("rows", [1, 7, 131])
@pytest.mark.parametrize("needs", [True, False])
def test_value_and_gradients(monkeypatch: pytest.MonkeyPatch, rows: int, needs: bool) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    if not room._onednn_is_faster():
        pytest.skip("this PyTorch offers no oneDNN product")
    x = torch.randn(rows, 13, requires_grad=needs)
    weight, bias = torch.randn(17, 13, requires_grad=True), torch.randn(17, requires_grad=True)
    direction = torch.randn(rows, 17)
    leaves = [*([x] if needs else []), weight, bias]
    found, expected = linear(x, weight, bias), F.linear(x, weight, bias)
    assert type(found.grad_fn).__name__ == "_LinearBackward"
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, leaves, direction), torch.autograd.grad(expected, leaves, direction)
    )
    torch.testing.assert_close(  # a gradient without memory of its own
        torch.autograd.grad(linear(x, weight, bias).sum(), leaves),
        torch.autograd.grad(F.linear(x, weight, bias).sum(), leaves),
    )


@pytest.mark.parametrize("why", ["processor", "operator", "float64", "autocast"])
def test_fallback_without_onednn(monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def gone(*_: object) -> None:
        raise AttributeError("no such operator")

    capability = "AVX2" if why == "processor" else "AVX512"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    if why == "operator":
        monkeypatch.setattr(room, "_product", gone)
    kind = torch.float64 if why == "float64" else torch.float32
    weight, bias = torch.randn(17, 13, dtype=kind), torch.randn(17, dtype=kind)
    x = torch.randn(5, 13, dtype=kind, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=why == "autocast"):
        found = linear(x, weight, bias)
        assert found.dtype == (torch.bfloat16 if why == "autocast" else kind)
        assert type(found.grad_fn).__name__ != "_LinearBackward"
        assert torch.equal(found, F.linear(x, weight, bias))


def test_product_by_both_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    x, weight = torch.randn(31, 7), torch.randn(7, 11).T
    torch.testing.assert_close(product(x, weight), x @ weight.T)
    monkeypatch.setattr(room, "MIN_MULTIPLICATIONS", 1 << 40)
    assert torch.equal(product(x, weight), F.linear(x, weight))
