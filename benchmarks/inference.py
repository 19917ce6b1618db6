"""Scoring a batch against the forward pass of its training step, and against bare encoders.

    python -m benchmarks.inference

The training forward is the network and its objective in training mode, in float32; scoring is `Method.score`
in inference mode. Since dropout costs little here, the same forward pass with PyTorch's own dropout is timed
too.
"""

from __future__ import annotations

from collections.abc import Callable
from unittest import mock

import cyclopts
import torch

from benchmarks.measure import alternate, finish, machine, table
from benchmarks.workload import BATCH, Sample, make_batch, make_method, make_yardstick, mosei_lengths
from carat.models.base import Model


def training_forward(method: Model, batch: Sample, stock_dropout: bool = False) -> Callable[[], object]:
    """Network and objective, as a training step computes them before the backward pass."""

    def call() -> object:
        method.train()
        return method.losses(method(batch.features, batch.masks), batch.labels)["total"]

    def with_stock_dropout() -> object:
        with mock.patch("carat.models.layers.dropout.on_host", return_value=False):
            return call()

    return with_stock_dropout if stock_dropout else call


def scoring(method: Model, batch: Sample, bf16: bool = False) -> Callable[[], object]:
    """What prediction computes."""

    def call() -> object:
        method.eval()
        device = batch.labels.device.type
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=bf16):
            return method.score(batch.features, batch.masks).scores

    return call


def main(*, rounds: int = 15, device: str = "auto") -> None:
    """Time scoring.

    Parameters
    ----------
    rounds
        Rounds, in each of which everything is timed once; medians are printed.
    device
        cpu, cuda, or auto: a GPU when there is one.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    method, bare = make_method(device=device), make_yardstick(device).eval()
    padded = make_batch(device=device)
    with torch.no_grad():
        for _ in range(3):  # until the queue is full
            outputs = method(padded.features, padded.masks)
            method.update_after_step(outputs, padded.labels)

    def bare_scoring() -> object:
        with torch.inference_mode():
            return bare(padded.features)

    calls: dict[str, Callable[[], object]] = {"bare encoders, padded": bare_scoring}
    batches = {"padded": padded, "lengths": make_batch(lengths=mosei_lengths(BATCH), device=device)}
    for kind, batch in batches.items():
        calls[f"training forward, {kind}"] = training_forward(method, batch)
        calls[f"training forward with PyTorch's dropout, {kind}"] = training_forward(method, batch, True)
        calls[f"scoring, {kind}"] = scoring(method, batch)
        calls[f"scoring in bf16, {kind}"] = scoring(method, batch, bf16=True)
    found = alternate(calls, rounds)
    ratios = {
        f"{name}_{kind}": found[f"{row}, {kind}"] / found[f"training forward{own}, {kind}"]
        for kind in batches
        for name, row, own in (
            ("score", "scoring", ""),
            ("score_to_stock_dropout", "scoring", " with PyTorch's dropout"),
            ("bf16_score", "scoring in bf16", ""),
        )
    }
    rows = [[name, value, BATCH / value] for name, value in found.items()]
    text = f"A batch of {BATCH}, {machine()['threads']} threads, {device}\n\n" + table(
        ["", "seconds", "samples / s"], rows
    )
    text += "\n\n" + table(["ratio", ""], list(ratios.items()))
    finish(
        text,
        ratios
        | {
            "score_to_bare": found["scoring, padded"] / found["bare encoders, padded"],
            "samples_per_s": BATCH / found["scoring, lengths"],
            "device": device,
        },
    )


if __name__ == "__main__":
    cyclopts.run(main)
