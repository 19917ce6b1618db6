"""From a table and features of your own to predictions.

    python examples/own_table.py [FOLDER]

Writes a small data set, builds a checked store from it with a recipe, trains, evaluates and predicts.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path

import numpy as np

import carat

EMOTIONS = ["happy", "sad", "anger"]
WIDTHS = {"audio": 20, "face": 16}

RECIPE = """
name: my-clips
table: clips.csv
id: clip
split: fold
splits: {train: train, valid: dev, test: test}
group: video                  # intervals resample videos, not clips
labels: {columns: [happy, sad, anger], rule: "> 0", intensities: true}
modalities:
  audio: {source: array, file: audio.npz, column: clip, standardise: true}
  face: {source: array, file: face.npz, column: clip, standardise: true}
"""


def write_data(folder: Path, clips: int = 400) -> None:
    """Write clips.csv, audio.npz and face.npz; emotions leave traces of three steps in the features."""
    random = np.random.default_rng(0)
    patterns = {m: 5 * np.linalg.qr(random.normal(size=(d, 3)))[0].T for m, d in WIDTHS.items()}
    arrays: dict[str, dict[str, np.ndarray]] = {m: {} for m in WIDTHS}
    with (folder / "clips.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["clip", "video", "fold", *EMOTIONS])
        for i in range(clips):
            fold = ("train", "train", "train", "dev", "test")[i // 4 % 5]  # clips of a video stay together
            present = random.random(3) < 0.4
            writer.writerow([f"c{i}", f"v{i // 4}", fold, *np.where(present, random.integers(1, 4, 3), 0)])
            for m, d in WIDTHS.items():
                if m == "face" and random.random() < 0.1:
                    continue  # the clip lacks this modality
                x = random.normal(size=(random.integers(8, 30), d))
                for pattern in patterns[m][present & (random.random(3) < 0.9)]:
                    start = random.integers(len(x) - 3)
                    x[start : start + 3] += pattern
                arrays[m][f"c{i}"] = x.astype(np.float32)
    for m in WIDTHS:
        np.savez(folder / f"{m}.npz", **arrays[m])


def main(folder: Path) -> None:
    """Run the example in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_data(folder)
    (folder / "recipe.yaml").write_text(RECIPE)
    store = carat.build_store(folder / "recipe.yaml", folder / "store")
    print(store)

    # Everything that differs from the preset; every key: docs/reference/configuration.md.
    experiment = {"preset": "small", "training": {"epochs": 4}}
    run = carat.train(experiment, store, folder / "run")

    # The threshold was chosen on validation; intervals resample videos.
    report = carat.load(run.folder).evaluate(store, "test")
    low, high = report.intervals["micro_f1"]
    print(f"test micro-F1 {report.metrics.micro_f1:.3f} (95 % interval {low:.3f} to {high:.3f})")

    # A run needs nothing but itself. raw=True standardizes features as the recipe did.
    predictor = carat.load(folder / "run")
    clip = {"audio": np.load(folder / "audio.npz")["c399"]}  # this clip comes without a face
    prediction = predictor.predict(clip, raw=True)
    for label, score in prediction.scores.items():
        print(f"{label:6} {score:.2f} {'present' if label in prediction.labels else ''}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="carat-")))
