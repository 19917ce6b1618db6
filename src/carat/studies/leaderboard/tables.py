"""The leaderboard as Markdown and CSV."""

from __future__ import annotations

import csv
import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from carat.config.baselines import METHOD_SECTIONS
from carat.data.store import Store
from carat.evaluation.bootstrap import Paired
from carat.evaluation.report import in_brackets, mean_and_spread, short, signed
from carat.studies.jobs import distinct, read_environment
from carat.studies.leaderboard.standings import BASE, COMPARED, MethodResult, SelectedTrial
from carat.utils.files import write_atomically

NAMES = {
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "rarest_f1": "rarest label",
    "accuracy": "accuracy (Jaccard)",
    "precision": "precision",
    "recall": "recall",
}


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
        every = set(self.methods) == METHOD_SECTIONS.keys()
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
        found = [
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
            found.append(f"SETTINGS.yaml: `{json.dumps(self.settings)}`.")
        return found


def difference(paired: Paired | None) -> str:
    """`+.012 (+.003 … +.021), p .01`; nothing for the base itself."""
    if paired is None:
        return ""
    p = "< .001" if paired.p < 0.001 else short(f"{paired.p:.3f}")
    return f"{signed(paired.difference)} ({in_brackets(paired.interval, signed=True)}), p {p}"


def scores(standing: MethodResult) -> list[str]:
    """Cells of the main table."""
    return [
        standing.method,
        mean_and_spread(standing.values("micro_f1")),
        in_brackets(standing.interval["micro_f1"]),
        difference(standing.against.get("micro_f1")),
        mean_and_spread(standing.values("macro_f1")),
        difference(standing.against.get("macro_f1")),
        mean_and_spread(standing.values("rarest_f1")),
        mean_and_spread(standing.values("accuracy")),
        *precision_and_recall(standing),
    ]


def precision_and_recall(standing: MethodResult) -> tuple[str, str]:
    """Means over the seeds as `P / R`, and as the literature prints them."""
    precision, recall = standing.mean("precision"), standing.mean("recall")
    return short(f"{precision:.3f} / {recall:.3f}"), short(f"{recall:.3f} / {precision:.3f}")


def score_columns(rarest: str) -> list[str]:
    """Of the main table."""
    return [
        "method",
        "micro-F1",
        "95 % interval",
        "minus CARAT",
        "macro-F1",
        "macro-F1 minus CARAT",
        f"F1 of the rarest ({rarest})",
        "accuracy (Jaccard)",
        "P / R",
        "literature P / R",
    ]


def costs(standing: MethodResult) -> list[str]:
    """Cells of the table of costs."""
    return [
        standing.method,
        f"{standing.parameters:,}",
        f"{standing.seconds_per_epoch:.1f}",
        f"{standing.epochs:.0f}",
        f"{standing.samples_per_second:,.0f}",
        f"{standing.peak_gb:.2f}",
        ", ".join(f"{key} = {value:.3g}" for key, value in standing.chosen.items()) or "as it starts",
    ]


COSTS = [
    "method",
    "parameters",
    "seconds per epoch",
    "epochs",
    "samples scored per second",
    "peak memory (GB)",
    "chosen by tuning",
]


def per_label_thresholds(standing: MethodResult) -> list[str]:
    """Cells of the table of per-label thresholds."""
    names = ("micro_f1", "macro_f1", "rarest_f1")
    return [standing.method, *(mean_and_spread(standing.values(name, per_label=True)) for name in names)]


def by_label(standing: MethodResult, labels: Sequence[str]) -> list[str]:
    """Cells of the table of labels."""
    return [standing.method, *(short(f"{np.mean(standing.label_f1(label)):.3f}") for label in labels)]


def write_tables(standings: Sequence[MethodResult], about: About, out: Path) -> None:
    """Write leaderboard.md, leaderboard.csv and costs.csv."""
    write_atomically(out / "leaderboard.md", _markdown(standings, about))
    with (out / "leaderboard.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        tested = [f"{m}_minus_{BASE}{end}" for m in COMPARED for end in ("", "_low", "_high", "_p")]
        labels = [f"f1_{label}" for label in about.labels]
        thresholds = [f"per_label_{name}" for name in ("micro_f1", "macro_f1", "rarest_f1")]
        missing = [f"micro_f1 {name}" for name in standings[0].missing]
        columns = ["method", "seed", "parameters", "validation_micro_f1", *NAMES, *tested]
        writer.writerow([*columns, *thresholds, *labels, *missing])
        for standing in standings:
            for place, seed in enumerate(standing.seeds):
                pairs = [standing.against.get(m) for m in COMPARED]
                writer.writerow(
                    [
                        *(standing.method, seed, standing.parameters, standing.validation[place]),
                        *(standing.values(name)[place] for name in NAMES),
                        *(x for p in pairs for x in ((p.difference, *p.interval, p.p) if p else [""] * 4)),
                        *(
                            standing.values(name.removeprefix("per_label_"), per_label=True)[place]
                            for name in thresholds
                        ),
                        *(standing.label_f1(label)[place] for label in about.labels),
                        *(value for _, value in standing.missing.values()),
                    ]
                )
    with (out / "costs.csv").open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerow(COSTS)
        for standing in standings:
            cells = costs(standing)
            writer.writerow([*(cell.replace(",", "") for cell in cells[:-1]), cells[-1]])


def _markdown(standings: Sequence[MethodResult], about: About) -> str:
    lines = [f"# Leaderboard on {about.store}", ""]
    for paragraph in about.paragraphs():
        lines += [textwrap.fill(paragraph, 118, break_on_hyphens=False, break_long_words=False), ""]
    lines += _table(score_columns(standings[0].rarest), [scores(x) for x in standings])
    lines += ["", "## F1 by label", ""]
    lines += _table(["method", *about.labels], [by_label(x, about.labels) for x in standings])
    lines += ["", "## With a threshold for each label", ""]
    lines += [
        "The same trainings, with thresholds searched on validation for each label by its own F1.",
        "",
        *_table(
            ["method", "micro-F1", "macro-F1", f"F1 of the rarest ({standings[0].rarest})"],
            [per_label_thresholds(x) for x in standings],
        ),
    ]
    lines += ["", "## With modalities taken away at test time", ""]
    lines += [
        textwrap.fill(
            "Micro-F1, mean over the seeds; thresholds are those of the whole data. `only …`: samples that "
            "have one of these modalities at least (how many stands below); `… % away`: each modality that a "
            "sample has is taken away with this probability, but never its last one; the same ones for every "
            "method.",
            118,
            break_on_hyphens=False,
        ),
        "",
        *missing_table(standings),
    ]
    lines += ["", "## Costs", "", *_table(COSTS, [costs(x) for x in standings]), ""]
    return "\n".join(lines)


def missing_table(standings: Sequence[MethodResult]) -> list[str]:
    """Micro-F1 by condition, one line per method, and how many samples each condition leaves."""
    conditions = standings[0].missing
    rows = [[x.method, *(short(f"{value:.3f}") for _, value in x.missing.values())] for x in standings]
    counts = ["samples", *(str(number) for number, _ in conditions.values())]
    return _table(["method", *conditions], [*rows, counts])


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return lines + [f"| {' | '.join(row)} |" for row in rows]
