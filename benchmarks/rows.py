"""Time and memory of each step on stores of many short samples: build, open, info, check, train, predict.

python -m benchmarks.rows
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable
from pathlib import Path

import cyclopts
import numpy as np
import yaml

from benchmarks.measure import finish, in_own_process, peak_gb, seconds, table
from benchmarks.scaling import exponent
from carat.config.experiment import as_experiment
from carat.data.recipes.build import build_store
from carat.data.store import open_store

WIDTH, STEPS, SIZE = 4, 2, 4096
"""Features per step, steps per sample, and batch size."""
EXPERIMENT = {
    "method": {"name": "linear"},
    "data": {"batch_size": SIZE},
    "training": {"epochs": 1, "accelerator": "cpu"},
}


def write_sources(folder: Path, samples: int) -> None:
    """Write a table, an array of features and the recipe of a store."""
    random = np.random.default_rng(0)
    splits = random.choice(["train", "valid", "test"], samples, p=[0.8, 0.1, 0.1]).tolist()
    labels = random.integers(0, 2, (samples, 3)).tolist()
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(["id", "video", "split", "joy", "sadness", "anger"])
        writer.writerows((i, f"v{i // 20}", splits[i], *labels[i]) for i in range(samples))
    np.save(folder / "features.npy", random.random((samples, STEPS, WIDTH), dtype=np.float32) + 1)
    recipe = {
        "name": "rows",
        "table": "table.csv",
        "id": "id",
        "split": "split",
        "group": "video",
        "labels": {"columns": ["joy", "sadness", "anger"]},
        "modalities": {"audio": {"source": "array", "file": "features.npy", "column": "id"}},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")


def build(folder: Path) -> None:
    build_store(folder / "recipe.yaml", folder / "store")


def open_(folder: Path) -> None:
    open_store(folder / "store")


def info(folder: Path) -> None:
    from carat.data.summary import summarize

    summarize(open_store(folder / "store"))


def check(folder: Path) -> None:
    from carat.data.checks.store import check_store

    check_store(open_store(folder / "store"))


def start(folder: Path) -> None:
    """Prepare a training and load its first batch."""
    from carat.training.distributed import SINGLE_PROCESS
    from carat.training.setup import prepare_task

    task = prepare_task(as_experiment(EXPERIMENT), open_store(folder / "store"), SINGLE_PROCESS)
    next(iter(task.loaders["train"]))


def train(folder: Path) -> None:
    import carat

    carat.train(EXPERIMENT, folder / "store", folder / "run")


def predict(folder: Path) -> None:
    from carat.inference.shards import predict_in_shards

    predict_in_shards(folder / "run", folder / "store", folder / "scores", size=1 << 16)


PARTS: dict[str, Callable[[Path], None]] = {
    "build": build,
    "open": open_,
    "info": info,
    "check": check,
    "train start": start,
    "one epoch": train,
    "predict": predict,
}
"""Steps, in the order in which they need each other's files."""


def metadata(folder: Path, samples: int) -> float:
    """Bytes per sample of all files of the store but the features."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "audio.npy"]
    return sum(file.stat().st_size for file in files) / samples


def main(*, samples: list[int] | None = None, part: str = "", folder: Path | None = None) -> None:
    """Measure every step in a process of its own.

    Parameters
    ----------
    samples
        Sizes of the stores; defaults to 10,000, 100,000 and 1,000,000.
    part, folder
        Measure one step in this process, with the files of a folder.
    """
    if part and folder is not None:
        before = peak_gb()
        duration = seconds(lambda: PARTS[part](folder))
        finish("", {"seconds": duration, "gb": peak_gb() - before})
        return
    sizes = samples or [10_000, 100_000, 1_000_000]
    durations: dict[str, list[float]] = {name: [] for name in PARTS}
    memory: dict[str, list[float]] = {name: [] for name in PARTS}
    bytes_per_sample = []
    for size in sizes:
        with tempfile.TemporaryDirectory() as temporary:
            files = Path(temporary)
            write_sources(files, size)
            for name in PARTS:
                result = in_own_process("benchmarks.rows", "--part", name, "--folder", temporary)
                durations[name].append(result["seconds"])
                memory[name].append(result["gb"])
            bytes_per_sample.append(metadata(files / "store", size))
    rows = []
    for name in PARTS:
        growth = exponent(sizes[-2:], durations[name][-2:]) if len(sizes) > 1 else float("nan")
        rows.append([name, *durations[name], growth, *memory[name]])
    columns = ["", *(f"{n:,}, s" for n in sizes), "exponent", *(f"{n:,}, GB" for n in sizes)]
    largest = {name: durations[name][-1] for name in PARTS}
    text = (
        f"Samples of {STEPS} steps with {WIDTH} features, the linear method in batches of {SIZE}; memory is "
        f"what each step adds to the peak of a process that has imported carat. Metadata, that is all files "
        f"but the features: {bytes_per_sample[-1]:.0f} bytes a sample. The exponent is the growth of time "
        f"between the two largest sizes, 1 for linear.\n\n" + table(columns, rows)
    )
    finish(text, {f"{name} s".replace(" ", "_"): x for name, x in largest.items()} | {
        "metadata_bytes": bytes_per_sample[-1]
    })


if __name__ == "__main__":
    cyclopts.run(main)
