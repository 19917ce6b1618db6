"""What a training step needs at least, and what share of the machine it gets.

    python -m benchmarks.roofline

FLOPs are those of all matrix products of one step (PyTorch's counter; additions and multiplications both
count), bytes what every operation reads and writes, as if no cache held anything. The machine's peak is the
faster of two large float32 products (PyTorch's, oneDNN's), its bandwidth that of a large copy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import cyclopts
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measure import alternate, finish, machine, table
from benchmarks.workload import BATCH, make_batch, make_method, mosei_lengths, training_step
from carat.utils.device import _onednn_is_faster, _product

FILL = 3
KINDS = {
    "matrix products": ("mm", "linear", "Linear"),
    "random numbers": ("random_", "bernoulli"),
    "softmax, exp, log": ("softmax", "exp_", "log"),
    "layer norm, GELU": ("layer_norm", "gelu"),
    "copies and gathers": ("copy", "cat", "index", "gather", "fill_", "zero"),
}
"""Operations by what their names contain; the first that fits counts."""


class CountBytes(TorchDispatchMode):
    """Sums the sizes of what every operation reads and writes; views are free."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            moved = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
            self.total += sum(x.numel() * x.element_size() for x in moved)
        return out


def needed(step: Callable[[], None]) -> tuple[float, float]:
    """FLOPs and bytes of a step; products are counted as PyTorch's, which its counter knows."""
    with mock.patch("carat.utils.device._onednn_is_faster", return_value=False):
        with FlopCounterMode(display=False) as flops:
            step()
        with CountBytes() as moved:
            step()
    return float(flops.get_total_flops()), float(moved.total)


def by_kind(step: Callable[[], None], rounds: int = 3) -> dict[str, float]:
    """Share of the time by kind of operation."""
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        for _ in range(rounds):
            step()
    shares = dict.fromkeys([*KINDS, "the rest"], 0.0)
    for event in found.key_averages():
        kind = next((k for k, parts in KINDS.items() if any(p in event.key for p in parts)), "the rest")
        shares[kind] += event.self_cpu_time_total
    total = sum(shares.values())
    return {kind: value / total for kind, value in shares.items()}


def main(*, rounds: int = 7) -> None:
    """Count, time and compare.

    Parameters
    ----------
    rounds
        Rounds, in each of which everything is timed once; medians are printed.
    """
    large, stream = torch.randn(2048, 2048), torch.randn(2**26)
    target = torch.empty_like(stream)
    yardsticks: dict[str, Callable[[], object]] = {
        "product": lambda: large @ large,
        "copy": lambda: target.copy_(stream),
    }
    if _onednn_is_faster():
        yardsticks["oneDNN product"] = lambda: _product(large, large)
    batches = {"padded": make_batch(), "lengths": make_batch(lengths=mosei_lengths(BATCH))}
    steps = {kind: training_step(make_method(), batch) for kind, batch in batches.items()}
    found = alternate(yardsticks | steps, rounds, warmup=FILL)
    products = {name: 2 * 2048**3 / found[name] / 1e9 for name in yardsticks if "product" in name}
    peak, bandwidth = max(products.values()), 2 * stream.nbytes / found["copy"] / 1e9
    values: dict[str, Any] = {"peak_gflops": peak, "bandwidth_gb_s": bandwidth} | {
        f"{name.replace(' ', '_')}_gflops": value for name, value in products.items()
    }
    rows, kinds = [], {}
    for kind, step in steps.items():
        flops, moved = needed(step)
        least = max(flops / peak, moved / bandwidth) / 1e9
        share = flops / found[kind] / 1e9 / peak
        rows.append([kind, flops / 1e9, moved / 1e9, flops / moved, found[kind], least, share])
        values |= {f"{kind}_gflop": flops / 1e9, f"{kind}_gb": moved / 1e9, f"{kind}_peak_share": share}
        kinds[kind] = by_kind(step)
    text = (
        f"Peak {', '.join(f'{name} {value:.0f} GFLOP/s' for name, value in products.items())}; copy "
        f"{bandwidth:.0f} GB/s; {machine()['threads']} threads\n\n"
        + table(["step", "GFLOP", "GB", "FLOP / byte", "seconds", "roofline s", "share of peak"], rows)
        + "\n\n"
        + table(
            ["share of the time", *kinds],
            [[kind, *(kinds[k][kind] for k in kinds)] for kind in [*KINDS, "the rest"]],
        )
    )
    finish(text, values)


if __name__ == "__main__":
    cyclopts.run(main)
