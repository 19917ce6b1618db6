"""Trains the run english-text that carat comes with, and writes results/english_text.md.

    CARAT_SHARED=… CARAT_TEXT_ENCODER=… python -m benchmarks.english_text --work DIR

CARAT_TEXT_ENCODER is the folder of all-MiniLM-L6-v2, see `carat models where`. What is finished in DIR is not
repeated. The encoder with a linear layer is trained on GoEmotions' 28 labels first, then on six labels of
reduced CMU-MOSEI in context, GoEmotions and BRIGHTER together. Epoch and calibration are chosen on the
validation splits of all three, thresholds on CMU-MOSEI's, which is what people say.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
from numpy.typing import NDArray

import carat
from benchmarks.corpora import LINEAR
from benchmarks.measure import machine, table
from benchmarks.mosei_reduced import with_interval
from benchmarks.mosei_text import COMMON
from carat.config.base import merge
from carat.data.store import Store
from carat.evaluation.bootstrap import intervals, paired_test
from carat.evaluation.formatting import in_brackets
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import apply_thresholds
from carat.inference.floors import predict_floors
from carat.inference.predictor import Predictor

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "recipes" / "corpora"
SHIPPED = ROOT / "src" / "carat" / "runs" / "shipped" / "english-text"
SPEED: dict[str, Any] = {"encoders": {"text": {"learning_rate": 6e-5}}}
FIRST: dict[str, Any] = merge(LINEAR, {"training": {"epochs": 3}})
"""On GoEmotions; as in benchmarks.corpora."""
SECOND: dict[str, Any] = merge(
    LINEAR,
    {
        "encoders": {"text": {"learning_rate": 4e-5}},
        "training": {"epochs": 2, "init_parts": "encoder"},
        "data": {"sampling": {"weights": {"goemotions": 0.25, "brighter": 2}}},
        "threshold": {"kind": "interpolated", "max_micro_f1_drop": 0.01},
    },
)
"""On all corpora; GoEmotions was seen three times before."""
LICENSE = "cc-by-4.0"
PLANS = {
    "mosei": "../mosei_reduced_context.yaml",
    "goemotions": "goemotions.yaml",
    "english-text": "english_text.yaml",
}
NAMES = {"mosei": "reduced CMU-MOSEI in context", "goemotions": "GoEmotions, grouped", "brighter": "BRIGHTER"}


def store_of(work: Path, name: str) -> Store:
    """A store in the folder of work, built if it is not there."""
    folder = work / "stores" / name
    if folder.exists():
        return carat.open_store(folder)
    make = carat.merge_stores if name == "english-text" else carat.build_store
    return make(RECIPES / PLANS[name], folder)


def train(work: Path, encoder: Path, goemotions: Path | None) -> Path:
    """Train both stages; the folder of the run."""
    values = merge(merge(COMMON, SPEED), {"encoders": {"text": {"folder": str(encoder)}}})
    first = goemotions or work / "goemotions-run"
    if goemotions is None:
        experiment = carat.load_experiment(overrides=merge(values, FIRST))
        carat.train(experiment, store_of(work, "goemotions"), first, resume=True)
    second = merge(merge(values, SECOND), {"training": {"init_from": str(first)}})
    run = work / "english-text-run"
    carat.train(carat.load_experiment(overrides=second), store_of(work, "english-text"), run, resume=True)
    return run


def measure(predictor: Predictor, store: Store, split: str) -> list[list[str]]:
    """Rows of a table: the run and floors on each corpus, with intervals and the difference from TF-IDF."""
    rows, scores, labels = predictor.score(store, split, calibrated=False)
    thresholds = np.array([predictor.card.thresholds[name] for name in predictor.labels])
    floors, _ = predict_floors(store, rows, predictor.experiment.threshold)
    found = {"english-text": apply_thresholds(scores, thresholds)} | floors
    corpora = np.asarray(store.corpora)[rows]
    written = []
    for corpus in dict.fromkeys(corpora):
        chosen = corpora == corpus
        known = ~np.isnan(labels[chosen]).all(0)
        truth, groups = labels[chosen][:, known], store.groups[rows][chosen]
        names = [name for name, is_known in zip(predictor.labels, known, strict=True) if is_known]
        for name, predicted in found.items():
            mine, words = predicted[chosen][:, known], floors["TF-IDF"][chosen][:, known]
            written.append(_row(NAMES[corpus], name, mine, words, truth, groups, names))
    return written


def _row(
    corpus: str,
    name: str,
    predicted: NDArray[np.bool_],
    words: NDArray[np.bool_],
    truth: NDArray[Any],
    groups: NDArray[Any],
    labels: list[str],
) -> list[str]:
    metrics = compute_metrics(predicted.astype(np.float32), predicted, truth, labels)
    of = intervals(predicted, truth, groups)
    minus = (
        with_interval(paired_test(predicted, words, truth, groups, "macro_f1")) if name != "TF-IDF" else ""
    )
    cells = [f"{getattr(metrics, x):.3f} {in_brackets(of[x])}" for x in ("micro_f1", "macro_f1")]
    by_label = ", ".join(f"{label} {metrics.labels[label].f1:.2f}" for label in labels)
    return [corpus, name, str(len(truth)), *cells, minus, by_label]


def main(
    *,
    work: Path,
    goemotions: Path | None = None,
    out: Path = SHIPPED,
    page: Path = ROOT / "results" / "english_text.md",
) -> None:
    """Train, export and measure.

    Parameters
    ----------
    work
        Folder of stores and runs.
    goemotions
        Finished run on GoEmotions to start from, such as `runs/goemotions/seed0` of benchmarks.corpora.
    out
        Folder of the run without the published weights of its encoder.
    page
        Page to write.
    """
    encoder, started = Path(os.environ["CARAT_TEXT_ENCODER"]), time.monotonic()
    run = train(work, encoder, goemotions)
    store = store_of(work, "english-text")
    carat.tune_thresholds(run, store_of(work, "mosei"))
    small = carat.export_without_base(run, out, store=store, overwrite=True)
    carat.make_model_card(out, store, license=LICENSE)
    columns = ["corpus", "", "samples", "micro-F1", "macro-F1", "macro-F1 minus TF-IDF", "F1 by label"]
    tables = {
        split: table(columns, measure(carat.load(out, "cpu"), store, split)) for split in ("test", "valid")
    }
    environment = json.loads((run / "environment.json").read_text(encoding="utf-8"))
    page.write_text(
        describe(tables, small.f1, small.size, environment, store, time.monotonic() - started),
        encoding="utf-8",
    )


def describe(
    tables: dict[str, str],
    f1: dict[str, dict[str, float]],
    size: int,
    environment: dict[str, Any],
    store: Store,
    seconds: float,
) -> str:
    """The results page."""
    change = ", ".join(
        f"{name.replace('_f1', '-F1')} {f1['before'][name]:.4f} → {f1['after'][name]:.4f}"
        for name in f1["before"]
    )
    remarks = ROOT / "results" / "english_text_remarks.md"
    return f"""# The run english-text

Made by `python -m benchmarks.english_text`; do not edit: remarks stand in `results/english_text_remarks.md`.

all-MiniLM-L6-v2 with a linear layer, trained on GoEmotions' labels, then on six labels of three corpora
(store `english-text`, fingerprint {store.manifest.fingerprint[:16]}); seed 0, commit
{environment["commit"]}. Thresholds are chosen on CMU-MOSEI's validation split, calibration is learnt on those
of all three. Without the published weights {size / 1e6:.1f} MB, as 8-bit differences: on validation {change}.

## Test

{tables["test"]}

Intervals are 95 % bootstrap intervals over groups (videos; single texts), 2,000 resamples. `prior` and
`TF-IDF` are trained on the same samples, with thresholds by the same rule on all three validation splits.

## Validation

{tables["valid"]}

{remarks.read_text(encoding="utf-8") if remarks.exists() else ""}
Measured in {seconds:.0f} s: {json.dumps(machine())}
"""


if __name__ == "__main__":
    cyclopts.run(main)
