"""Tables of the leaderboard, and its Markdown and CSV files."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carat.data.store import Store
from carat.data.summary import unknown_notes
from carat.evaluation.bootstrap import Paired
from carat.evaluation.corpora import CAPTION, corpus_cells, corpus_table
from carat.evaluation.formatting import decimal, in_brackets, mean_and_spread, signed
from carat.studies.jobs import distinct, read_environment
from carat.studies.leaderboard.evaluation import BASE, COMPARED, MethodResult, SelectedTrial
from carat.studies.leaderboard.protocol import Protocol
from carat.utils.files import write_atomically
from carat.utils.tables import Table, escape_markdown

METRICS = ("micro_f1", "macro_f1", "rarest_f1", "accuracy", "precision", "recall")
"""Columns of leaderboard.csv; `rarest_f1` is the F1 of the rarest label."""
PER_LABEL = METRICS[:3]
"""Metrics that are also computed with per-label thresholds."""
COSTS = [
    "method",
    "parameters",
    "seconds per epoch",
    "epochs",
    "samples scored per second",
    "peak memory (GB)",
    "chosen by tuning",
]


@dataclass(frozen=True)
class About:
    """Provenance of a leaderboard: data, protocol and environment."""

    store: str
    samples: int
    fingerprint: str
    notes: str
    """Notes of the store, and how many of its labels are unknown."""
    labels: Sequence[str]
    test: int
    """Number of test samples."""
    groups: int
    """Number of groups in the test split."""
    seeds: Sequence[int]
    methods: list[str]
    """Names of the compared methods."""
    protocol: Protocol
    commit: str
    processor: str
    torch: str
    failed: Mapping[str, str]
    """Reason by method that failed and was left out."""

    @classmethod
    def of(
        cls,
        selected: Sequence[SelectedTrial],
        store: Store,
        out: Path,
        protocol: Protocol,
        failed: Mapping[str, str],
    ) -> About:
        """Collect the provenance from complete training runs.

        Args:
            selected: the selected trial of each method.
            store: the data.
            out: output folder of the comparison.
            protocol: how the methods were compared.
            failed: reason by method that failed.
        """
        runs = [read_environment(job, out) for trial in selected for job in trial.jobs]
        test = store.indices("test")
        return cls(
            store=store.manifest.name,
            samples=len(store),
            fingerprint=store.manifest.fingerprint,
            notes="; ".join([*store.manifest.notes, *unknown_notes(store)]) or "no notes",
            labels=store.label_names,
            test=len(test),
            groups=len(set(store.groups[test].tolist())),
            seeds=[job.experiment.seed for job in selected[0].jobs],
            methods=[trial.method for trial in selected],
            protocol=protocol,
            commit=distinct(x["commit"] for x in runs),
            processor=distinct(x["processor"] for x in runs),
            torch=distinct(x["packages"]["torch"] for x in runs),
            failed=failed,
        )

    def paragraphs(self) -> list[str]:
        """Description of data, protocol and environment, one string per paragraph."""
        paragraphs = [
            f"{self.samples} samples, {self.test} of them in the test split in {self.groups} groups; seeds "
            f"{', '.join(map(str, self.seeds))}; {self.protocol.tuning}. Epoch, threshold and "
            "hyperparameters are selected on validation, never on test. Mean ± standard deviation over the "
            "seeds; intervals are 95 %, bootstrapped by group.",
            "Minus CARAT: paired bootstrap over groups and seeds; p-values are corrected over all methods "
            "(Holm). Literature P / R: precision and recall as reported by the released evaluation code of "
            "the field, which swaps its arguments; accuracy and F1 are not affected.",
            f"Store {self.store}, fingerprint {self.fingerprint[:16]}: {self.notes}. Trained at commit "
            f"{self.commit}; {self.processor}, torch {self.torch}, one core per training run. Created by "
            f"`{self.protocol.command(self.methods)}`.",
        ]
        if settings := self.protocol.settings:
            paragraphs.append(f"SETTINGS.yaml: `{json.dumps(settings)}`.")
        paragraphs += [f"Left out: {method}, {reason}." for method, reason in self.failed.items()]
        return paragraphs


def difference(paired: Paired | None) -> str:
    """Format a difference as `+.012 (+.003 … +.021), p .01`; empty for the base itself."""
    if paired is None:
        return ""
    p = "< .001" if paired.p < 0.001 else decimal(paired.p)
    return f"{signed(paired.difference)} ({in_brackets(paired.interval, signed=True)}), p {p}"


def precision_and_recall(result: MethodResult) -> tuple[str, str]:
    """Format precision and recall, means over the seeds, as `P / R` and in the order of the literature."""
    precision, recall = decimal(result.mean("precision")), decimal(result.mean("recall"))
    return f"{precision} / {recall}", f"{recall} / {precision}"


def score_table(results: Sequence[MethodResult]) -> Table:
    """Build the main table: mean metrics, their intervals and differences from the base."""
    columns = [
        "method",
        "micro-F1",
        "95 % interval",
        "minus CARAT",
        "macro-F1",
        "macro-F1 minus CARAT",
        _rarest(results),
        "accuracy (Jaccard)",
        "P / R",
        "literature P / R",
    ]
    return Table(
        columns,
        [
            [
                x.method,
                mean_and_spread(x.values("micro_f1")),
                in_brackets(x.interval["micro_f1"]),
                difference(x.against.get("micro_f1")),
                mean_and_spread(x.values("macro_f1")),
                difference(x.against.get("macro_f1")),
                mean_and_spread(x.values("rarest_f1")),
                mean_and_spread(x.values("accuracy")),
                *precision_and_recall(x),
            ]
            for x in results
        ],
    )


def label_table(results: Sequence[MethodResult], labels: Sequence[str]) -> Table:
    """Build the table of F1 by label, averaged over the seeds."""
    rows = [[x.method, *(decimal(float(np.mean(x.label_f1(label)))) for label in labels)] for x in results]
    return Table(["method", *labels], rows)


def corpora_table(results: Sequence[MethodResult]) -> Table:
    """Build the table of metrics by corpus."""
    return corpus_table("method", {x.method: x.corpora for x in results})


def threshold_table(results: Sequence[MethodResult]) -> Table:
    """Build the table of metrics with per-label thresholds."""
    rows = [
        [x.method, *(mean_and_spread(x.values(name, per_label=True)) for name in PER_LABEL)] for x in results
    ]
    return Table(["method", "micro-F1", "macro-F1", _rarest(results)], rows)


def missing_table(results: Sequence[MethodResult]) -> Table:
    """Build the table of micro-F1 by condition; the last row has the number of samples."""
    conditions = results[0].missing
    rows = [[x.method, *(decimal(value) for _, value in x.missing.values())] for x in results]
    counts = ["samples", *(str(number) for number, _ in conditions.values())]
    headings = [name.replace(" away", " missing") for name in conditions]
    return Table(["method", *headings], [*rows, counts])


def cost_table(results: Sequence[MethodResult]) -> Table:
    """Build the table of model size, time, memory and tuned hyperparameters."""
    rows = [
        [
            x.method,
            f"{x.parameters:,}",
            f"{x.seconds_per_epoch:.1f}",
            f"{x.epochs:.0f}",
            f"{x.samples_per_second:,.0f}",
            f"{x.peak_gb:.2f}",
            ", ".join(f"{key} = {value:.3g}" for key, value in x.chosen.items()) or "default",
        ]
        for x in results
    ]
    return Table(COSTS, rows)


def seed_table(results: Sequence[MethodResult], labels: Sequence[str]) -> Table:
    """Build the table with one row per method and seed, in full precision; differences are over all seeds."""
    records: list[dict[str, Any]] = []
    for x in results:
        tests: dict[str, float | None] = {}
        for metric in COMPARED:
            paired = x.against.get(metric)
            values = (paired.difference, *paired.interval, paired.p) if paired else (None,) * 4
            ends = ("", "_low", "_high", "_p")
            tests |= {f"{metric}_minus_{BASE}{end}": y for end, y in zip(ends, values, strict=True)}
        for i, seed in enumerate(x.seeds):
            records.append(
                {
                    "method": x.method,
                    "seed": seed,
                    "parameters": x.parameters,
                    "validation_micro_f1": x.validation[i],
                    **{name: x.values(name)[i] for name in METRICS},
                    **tests,
                    **{f"per_label_{name}": x.values(name, per_label=True)[i] for name in PER_LABEL},
                    **{f"f1_{label}": x.label_f1(label)[i] for label in labels},
                    **corpus_cells(x.corpora, i),
                    **{f"micro_f1 {name}": value for name, (_, value) in x.missing.items()},
                }
            )
    return Table.from_records(records)


def write_tables(results: Sequence[MethodResult], about: About, out: Path) -> None:
    """Write leaderboard.md, leaderboard.csv and costs.csv.

    Args:
        results: results of all methods, the best first.
        about: provenance of the results.
        out: output folder.
    """
    write_atomically(out / "leaderboard.md", _markdown(results, about))
    seed_table(results, about.labels).to_csv(out / "leaderboard.csv")
    costs = cost_table(results)
    plain = [[*(cell.replace(",", "") for cell in row[:-1]), row[-1]] for row in costs.rows]
    Table(costs.columns, plain).to_csv(out / "costs.csv")


def _rarest(results: Sequence[MethodResult]) -> str:
    return f"F1 of the rarest label ({results[0].rarest})"


def _markdown(results: Sequence[MethodResult], about: About) -> str:
    paragraphs = [_fill(escape_markdown(paragraph)) for paragraph in about.paragraphs()]
    parts = [f"# Leaderboard on {escape_markdown(about.store)}", *paragraphs]
    parts.append(score_table(results).to_markdown())
    parts += ["## F1 by label", label_table(results, about.labels).to_markdown()]
    if results[0].corpora:
        parts += ["## Corpora", CAPTION, corpora_table(results).to_markdown()]
    parts += [
        "## Per-label thresholds",
        "The same models; each label's threshold maximizes its F1 on validation.",
        threshold_table(results).to_markdown(),
        "## Missing modalities at test time",
        _fill(
            "Micro-F1, mean over the seeds, at the thresholds of the complete data. `only …`: samples that "
            "have at least one of these modalities (their number is in the last row). `…% missing`: each "
            "modality of a sample is dropped with this probability, except for its last one; the same "
            "modalities are dropped for every method."
        ),
        missing_table(results).to_markdown(),
        "## Costs",
        cost_table(results).to_markdown(),
    ]
    return "\n\n".join(parts) + "\n"


def _fill(paragraph: str) -> str:
    return textwrap.fill(paragraph, 118, break_on_hyphens=False, break_long_words=False)
