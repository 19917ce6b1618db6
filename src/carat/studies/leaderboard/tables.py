"""The leaderboard's tables, and its Markdown and CSV files."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carat.config.methods import method_names
from carat.data.store import Store
from carat.evaluation.bootstrap import Paired
from carat.evaluation.formatting import decimal, in_brackets, mean_and_spread, signed
from carat.studies.jobs import distinct, read_environment
from carat.studies.leaderboard.standings import BASE, COMPARED, MethodResult, SelectedTrial
from carat.utils.files import write_atomically
from carat.utils.tables import Table

METRICS = ("micro_f1", "macro_f1", "rarest_f1", "accuracy", "precision", "recall")
"""Columns of leaderboard.csv; `rarest_f1` is that of the rarest label."""
PER_LABEL = METRICS[:3]
"""Those that are also computed with a threshold for each label."""
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
    """What a reader must know to trust a leaderboard, and to make it again."""

    store: str
    samples: int
    fingerprint: str
    notes: str
    """Of the store."""
    labels: Sequence[str]
    test: int
    groups: int
    """Of the test split."""
    seeds: Sequence[int]
    methods: list[str]
    """As they were named."""
    budget: int
    preset: str
    settings: Mapping[str, Any]
    commit: str
    processor: str
    torch: str

    @classmethod
    def of(
        cls,
        finals: Sequence[SelectedTrial],
        store: Store,
        out: Path,
        preset: str,
        settings: Mapping[str, Any],
        budget: int,
    ) -> About:
        """Gather it from finished trainings."""
        runs = [read_environment(job, out) for final in finals for job in final.jobs]
        test = store.indices("test")
        return cls(
            store=store.manifest.name,
            samples=len(store),
            fingerprint=store.manifest.fingerprint,
            notes="; ".join(store.manifest.notes) or "no notes",
            labels=store.label_names,
            test=len(test),
            groups=len(set(store.groups[test].tolist())),
            seeds=[job.experiment.seed for job in finals[0].jobs],
            methods=[final.method for final in finals],
            budget=budget,
            preset=preset,
            settings=settings,
            commit=distinct(x["commit"] for x in runs),
            processor=distinct(x["processor"] for x in runs),
            torch=distinct(x["packages"]["torch"] for x in runs),
        )

    @property
    def command(self) -> str:
        """What makes it again."""
        settings = " --settings SETTINGS.yaml" if self.settings else ""
        every = set(self.methods) == set(method_names())
        return (
            f"carat compare --data STORE --out DIR --methods {'all' if every else ' '.join(self.methods)} "
            f"--preset {self.preset} --seeds {len(self.seeds)} --budget {self.budget}{settings}"
        )

    def paragraphs(self) -> list[str]:
        """How the numbers came about."""
        tuned = (
            f"each method was tuned by {self.budget} trials on validation (learning rate and dropouts, or "
            "the penalty of a regression)"
            if self.budget > 1
            else "nothing was tuned: every method has the settings it starts with"
        )
        paragraphs = [
            f"{self.samples} samples, {self.test} of them in the test split in {self.groups} groups; seeds "
            f"{', '.join(map(str, self.seeds))}; {tuned}. Epoch, threshold and settings are chosen on "
            "validation, never on test. Mean ± standard deviation over the seeds; intervals are 95 %, "
            "bootstrapped by group.",
            "Minus CARAT: paired bootstrap over groups and seeds; p-values are corrected over all methods "
            "(Holm). Literature P / R: precision and recall as the field's released evaluation prints them, "
            "with its arguments in the wrong order; accuracy and F1 do not change by that.",
            f"Store {self.store}, fingerprint {self.fingerprint[:16]}: {self.notes}. Trained at commit "
            f"{self.commit}; {self.processor}, torch {self.torch}, one core per training. Made by "
            f"`{self.command}`.",
        ]
        if self.settings:
            paragraphs.append(f"SETTINGS.yaml: `{json.dumps(self.settings)}`.")
        return paragraphs


def difference(paired: Paired | None) -> str:
    """`+.012 (+.003 … +.021), p .01`; nothing for the base itself."""
    if paired is None:
        return ""
    p = "< .001" if paired.p < 0.001 else decimal(paired.p)
    return f"{signed(paired.difference)} ({in_brackets(paired.interval, signed=True)}), p {p}"


def precision_and_recall(result: MethodResult) -> tuple[str, str]:
    """Means over the seeds as `P / R`, and as the literature prints them."""
    precision, recall = decimal(result.mean("precision")), decimal(result.mean("recall"))
    return f"{precision} / {recall}", f"{recall} / {precision}"


def score_table(results: Sequence[MethodResult]) -> Table:
    """The main table: metrics with intervals and differences to the base, averaged over the seeds."""
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
    """F1 of each label, averaged over the seeds."""
    rows = [[x.method, *(decimal(float(np.mean(x.label_f1(label)))) for label in labels)] for x in results]
    return Table(["method", *labels], rows)


def threshold_table(results: Sequence[MethodResult]) -> Table:
    """Metrics with a threshold for each label."""
    rows = [
        [x.method, *(mean_and_spread(x.values(name, per_label=True)) for name in PER_LABEL)] for x in results
    ]
    return Table(["method", "micro-F1", "macro-F1", _rarest(results)], rows)


def missing_table(results: Sequence[MethodResult]) -> Table:
    """Micro-F1 by condition, one row per method; the last row is how many samples each condition leaves."""
    conditions = results[0].missing
    rows = [[x.method, *(decimal(value) for _, value in x.missing.values())] for x in results]
    counts = ["samples", *(str(number) for number, _ in conditions.values())]
    return Table(["method", *conditions], [*rows, counts])


def cost_table(results: Sequence[MethodResult]) -> Table:
    """Size, time and memory, and what tuning changed."""
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
    """One row per method and seed, in full precision; differences are over all seeds of a method."""
    records: list[dict[str, Any]] = []
    for x in results:
        tests: dict[str, float | None] = {}
        for metric in COMPARED:
            paired = x.against.get(metric)
            values = (paired.difference, *paired.interval, paired.p) if paired else (None,) * 4
            ends = ("", "_low", "_high", "_p")
            tests |= {f"{metric}_minus_{BASE}{end}": y for end, y in zip(ends, values, strict=True)}
        for place, seed in enumerate(x.seeds):
            records.append(
                {
                    "method": x.method,
                    "seed": seed,
                    "parameters": x.parameters,
                    "validation_micro_f1": x.validation[place],
                    **{name: x.values(name)[place] for name in METRICS},
                    **tests,
                    **{f"per_label_{name}": x.values(name, per_label=True)[place] for name in PER_LABEL},
                    **{f"f1_{label}": x.label_f1(label)[place] for label in labels},
                    **{f"micro_f1 {name}": value for name, (_, value) in x.missing.items()},
                }
            )
    return Table.from_records(records)


def write_tables(results: Sequence[MethodResult], about: About, out: Path) -> None:
    """Write leaderboard.md, leaderboard.csv and costs.csv."""
    write_atomically(out / "leaderboard.md", _markdown(results, about))
    seed_table(results, about.labels).to_csv(out / "leaderboard.csv")
    costs = cost_table(results)
    plain = [[*(cell.replace(",", "") for cell in row[:-1]), row[-1]] for row in costs.rows]
    Table(costs.columns, plain).to_csv(out / "costs.csv")


def _rarest(results: Sequence[MethodResult]) -> str:
    return f"F1 of the rarest ({results[0].rarest})"


def _markdown(results: Sequence[MethodResult], about: About) -> str:
    parts = [f"# Leaderboard on {about.store}", *map(_fill, about.paragraphs())]
    parts.append(score_table(results).to_markdown())
    parts += ["## F1 by label", label_table(results, about.labels).to_markdown()]
    parts += [
        "## With a threshold for each label",
        "The same trainings, with thresholds searched on validation for each label by its own F1.",
        threshold_table(results).to_markdown(),
        "## With modalities taken away at test time",
        _fill(
            "Micro-F1, mean over the seeds; thresholds are those of the whole data. `only …`: samples that "
            "have one of these modalities at least (how many stands below); `… % away`: each modality that a "
            "sample has is taken away with this probability, but never its last one; the same ones for every "
            "method."
        ),
        missing_table(results).to_markdown(),
        "## Costs",
        cost_table(results).to_markdown(),
    ]
    return "\n\n".join(parts) + "\n"


def _fill(paragraph: str) -> str:
    return textwrap.fill(paragraph, 118, break_on_hyphens=False, break_long_words=False)
