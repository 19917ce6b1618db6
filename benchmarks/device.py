"""Training steps on a GPU: time, waiting for the host, an epoch from a store.

    python -m benchmarks.device

Steps are those of the paper's size over padded batches. While they are watched PyTorch raises whenever the
host waits for the device (`torch.cuda.set_sync_debug_mode`). The epoch is `carat train`'s loader with two
workers and its step, 255 times 64 samples with lengths like MOSEI's. With `--device cpu` the same runs, but
nothing waits.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cyclopts
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.data import write_store
from benchmarks.measure import alternate, finish, machine, seconds, table
from benchmarks.workload import BATCH, WIDTHS, Sample, make_batch, make_method, training_step
from carat.data.loader import make_loader
from carat.training.compilation import ROUND_TO, compile_model

EPOCH = 255
FILL = 5
GRAPHS = ("eager", "compiled", "cuda-graphs")


def make_steps(device: str, graphs: tuple[str, ...]) -> dict[str, Callable[[], None]]:
    """A step by precision and graph; those that PyTorch cannot compile here are left out."""
    batch, steps = make_batch(device=device), {}
    for graph in graphs:
        for precision in ("float32", "bf16"):
            method = make_method(device=device)
            kind = "gpu" if device == "cuda" else "cpu"
            if graph != "eager" and (problem := compile_model(method, graph, kind)):
                print(problem)
                continue
            steps[f"{precision}, {graph}"] = training_step(method, batch, bf16=precision == "bf16")
    return steps


def waits(step: Callable[[], None], device: str) -> str:
    """What made the host wait within a step, or "none"."""
    if device != "cuda":
        return "not watched"
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def epoch(device: str, batches: int, bf16: bool) -> float:
    """Seconds of an epoch whose batches come from a store."""
    method, longest = make_method(device=device), dict.fromkeys(WIDTHS, 500)
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", batches * BATCH)
        loader = make_loader(
            store,
            store.indices("train"),
            list(WIDTHS),
            batch_size=BATCH,
            max_length=longest,
            shuffle=True,
            workers=2,
            pin_memory=device == "cuda",
            round_to=ROUND_TO,
        )

        given = Sample({}, {}, torch.zeros(0, device=device))
        step = training_step(method, given, bf16=bf16)

        def run() -> None:
            for batch in loader:
                moved = batch.to(device, non_blocking=True)
                given.features, given.masks, given.labels = moved.features, moved.masks, moved.labels
                step()

        run()  # workers start, kernels are chosen
        return seconds(run)


def main(*, rounds: int = 30, device: str = "cuda", batches: int = EPOCH) -> None:
    """Time steps and an epoch.

    Parameters
    ----------
    rounds
        Rounds, in each of which every step is timed once; medians are printed.
    device
        cuda; cpu to try the benchmark itself.
    batches
        Batches of the epoch.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("benchmarks.device: PyTorch finds no GPU")
    torch.set_float32_matmul_precision("high")  # TF32
    steps = make_steps(device, GRAPHS if device == "cuda" else GRAPHS[:1])
    found = alternate(steps, rounds, warmup=FILL)
    waiting = {name: waits(step, device) for name, step in steps.items()}
    fastest = min(found, key=lambda name: found[name])
    activity = ProfilerActivity.CUDA if device == "cuda" else ProfilerActivity.CPU
    with profile(activities=[activity], acc_events=True) as profiled:
        steps[fastest]()
    epochs = {name: epoch(device, batches, name == "bf16") for name in ("float32", "bf16")}
    rows = [[name, 1e3 * value, waiting[name]] for name, value in found.items()]
    order = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    kernels = profiled.key_averages().table(sort_by=order, row_limit=15, max_name_column_width=60)
    text = (
        f"{machine()['gpu'] or device}, batch {BATCH}, padded\n\n"
        + table(["step", "ms", "host waits for"], rows)
        + f"\n\nAn epoch of {batches} batches from a store, two workers, eager: "
        + ", ".join(f"{name} {value:.2f} s" for name, value in epochs.items())
        + f"\n\nOne step, {fastest}:\n\n```text\n{kernels}```"
    )
    values = {f"{name.replace(', ', '_')}_ms": 1e3 * value for name, value in found.items()}
    values |= {f"epoch_{name}_s": value for name, value in epochs.items()}
    finish(text, values | {"waits": waiting})


if __name__ == "__main__":
    cyclopts.run(main)
