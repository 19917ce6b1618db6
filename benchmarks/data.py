"""How fast a store feeds a training: the loader alone against the training steps that use its batches.

python -m benchmarks.data
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import cyclopts
import numpy as np

from benchmarks.measure import alternate, finish, machine, table
from benchmarks.workload import BATCH, LABELS, WIDTHS, Sample, make_method, mosei_lengths, training_step
from carat.data.batch import Batch
from carat.data.loader import make_loader
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter


def write_store(folder: Path, samples: int) -> Store:
    """A store of MOSEI's widths and lengths, with random features."""
    random = np.random.default_rng(0)
    lengths = mosei_lengths(samples).tolist()
    with StoreWriter(folder, "speed", list(LABELS), dict.fromkeys(WIDTHS, "random"), ["train"]) as writer:
        for i, steps in enumerate(lengths):
            features = {m: random.random((steps, d), dtype=np.float32) for m, d in WIDTHS.items()}
            writer.append(f"s{i}", "train", random.integers(0, 2, len(LABELS)), features)
    return open_store(folder)


def reading(store: Store, workers: int) -> Callable[[], object]:
    """One epoch of the loader, drawn anew each time; only workers that are still there are reused."""
    loader = make_loader(
        store,
        store.indices("train"),
        list(WIDTHS),
        batch_size=BATCH,
        max_length=dict.fromkeys(WIDTHS, 500),
        shuffle=True,
        workers=workers,
    )
    return lambda: sum(len(batch.rows) for batch in loader)


def training(store: Store, number: int = 6) -> tuple[Callable[[], object], int]:
    """Steps over the first batches of an epoch, and how many samples they hold."""
    rows = store.indices("train")
    loader = make_loader(
        store, rows, list(WIDTHS), batch_size=BATCH, max_length=dict.fromkeys(WIDTHS, 500), shuffle=True
    )
    batches: list[Batch] = [batch for batch, _ in zip(loader, range(number), strict=False)]
    method = make_method()
    calls = [training_step(method, Sample(b.features, b.masks, b.labels)) for b in batches]
    return lambda: [call() for call in calls], sum(len(b.rows) for b in batches)


def main(*, rounds: int = 5, samples: int = 4096) -> None:
    """Time loading and training.

    Parameters
    ----------
    rounds
        Rounds, in each of which everything is timed once; medians are printed.
    samples
        Samples of the store.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = write_store(Path(folder) / "store", samples)
        step, trained = training(store)
        calls = {"training": step} | {f"loader, {n} workers": reading(store, n) for n in (0, 2)}
        found = alternate(calls, rounds, warmup=1)
    rates = {name: (trained if name == "training" else samples) / value for name, value in found.items()}
    rows = [[name, rate, rate / rates["training"]] for name, rate in rates.items()]
    text = f"{samples} samples, batch {BATCH}, bucketed, {machine()['threads']} threads, float32\n\n" + table(
        ["", "samples / s", "ratio to training"], rows
    )
    feeds = {f"feeds_{n}_workers": rates[f"loader, {n} workers"] / rates["training"] for n in (0, 2)}
    finish(text, feeds | {"training_samples_per_s": rates["training"]})


if __name__ == "__main__":
    cyclopts.run(main)
