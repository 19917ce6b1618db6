"""Explain a run: attribution to modalities, what missing modalities change, and figures.

python examples/explain_run.py [FOLDER]
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

import carat


def main(folder: Path) -> None:
    """Run the example in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    store = carat.make_synthetic(folder / "store", samples=400)
    run = carat.train({"preset": "small", "training": {"epochs": 3}}, store, folder / "run")
    predictor = carat.load(run.folder)

    # One sample: scores, labels, and the modality with the strongest evidence for each label.
    sample = next(x for x in (store[i] for i in store.indices("test")) if len(x.features) == 3)
    whole = predictor.predict(sample.features)
    for label, score in whole.scores.items():
        print(f"{label:9} {score:.2f} {whole.attribution[label]}")

    # The same sample without one modality: a run accepts any subset.
    for missing in sample.features:
        rest = predictor.predict({m: x for m, x in sample.features.items() if m != missing})
        change = {label: rest.scores[label] - score for label, score in whole.scores.items()}
        label = max(change, key=lambda name: abs(change[name]))
        print(f"without {missing}: {label} changes most, by {change[label]:+.2f}")

    # A whole split: how often each modality has the strongest evidence for a predicted label.
    attributed: dict[str, Counter[str]] = {label: Counter() for label in predictor.labels}
    for _, prediction in predictor.predict_store(store, "test"):
        for label in prediction.labels:
            attributed[label][prediction.attribution[label]] += 1
    for label, counts in attributed.items():
        print(label, dict(counts))

    # Figures with their numbers as CSV: latents, contributions, co-occurrence, attention.
    for file in carat.explain(
        run.folder, store.folder, folder / "explained", samples=[sample.id], points=100
    ):
        print(file.name)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp(prefix="carat-")))
