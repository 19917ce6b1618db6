"""Calibration and promised error rates on reduced CMU-MOSEI, of TF-IDF with logistic regressions.

    python -m benchmarks.calibration SEGMENTS.csv.gz > results/calibration.md

Everything is learnt on the official training and validation folds, and measured on the test fold. The scores
are of a model of seconds, so that the statistics can be checked on real videos by everybody.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import machine
from carat.data.corpora.labels import MOSEI
from carat.evaluation.calibration.fitting import calibrate
from carat.evaluation.calibration.maps import map_scores
from carat.evaluation.calibration.reliability import compare_reliability
from carat.evaluation.conformal import RISKS, decide, fit_bounds, measure_decisions
from carat.evaluation.floors import word_scores
from carat.evaluation.thresholds import search_thresholds
from carat.utils.tables import Table

SHOWN = (0.05, 0.1, 0.2)
FOLDS = ("train", "valid", "test")
Split = tuple[list[str], NDArray[np.float64], NDArray[np.str_]]
"""Texts, labels (N, L) and videos (N,)."""


def read(file: Path) -> dict[str, Split]:
    """Read the official folds."""
    with gzip.open(file, "rt", encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    by_fold = {fold: [row for row in rows if row["fold"] == fold] for fold in FOLDS}
    return {
        fold: (
            [row["text"] for row in found],
            np.array([[float(row[name]) > 0 for name in MOSEI] for row in found], dtype=np.float64),
            np.array([row["video_id"] for row in found]),
        )
        for fold, found in by_fold.items()
    }


def decisions(
    scores: dict[str, NDArray[np.float32]], splits: dict[str, Split], names: list[str]
) -> tuple[Table, int]:
    """Rates on the test fold at each risk, and in how many cells the risk is below the interval."""
    _, labels, groups = splits["valid"]
    thresholds = search_thresholds(scores["valid"], labels, "interpolated")
    bounds = fit_bounds(scores["valid"], labels, groups, names)
    rows, beyond = [], 0
    for risk in SHOWN:
        at = RISKS.index(risk)
        absent = np.array([_or(bounds[name]["absent"][at], -np.inf) for name in names])
        present = np.array([_or(bounds[name]["present"][at], np.inf) for name in names])
        of = [
            measure_decisions(decide(scores["test"], thresholds, *sides), *splits["test"][1:], names)
            for sides in ((absent, None), (None, present))
        ]
        for name in names:
            missed, wrong = of[0][name], of[1][name]
            cells: list[Any] = [risk, name]
            for value, interval, unsure in (
                (missed.false_negatives, missed.false_negatives_interval, missed.unsure),
                (wrong.false_discoveries, wrong.false_discoveries_interval, wrong.unsure),
            ):
                beyond += interval[0] > risk
                cells += [f"{value:.3f} ({interval[0]:.3f} – {interval[1]:.3f})", f"{unsure:.0%}"]
            rows.append(cells)
    columns = ["risk", "label", "false negatives", "unsure", "false discoveries", "unsure"]
    return Table(columns, rows), beyond


def _or(value: float | None, never: float) -> float:
    return never if value is None else value


def main() -> None:
    started, splits, names = time.monotonic(), read(Path(sys.argv[1])), list(MOSEI)
    found = word_scores(splits["train"][0], splits["train"][1], [splits["valid"][0], splits["test"][0]])
    assert found is not None
    scores = {fold: x.astype(np.float32) for fold, x in zip(("valid", "test"), found, strict=True)}
    fitted = calibrate(scores["valid"], *splits["valid"][1:], names)
    maps = [fit.score_map for fit in fitted.labels.values()]
    kinds = {name: fit.score_map.kind for name, fit in fitted.labels.items()}
    calibrated = map_scores(scores["test"], maps)
    report = compare_reliability(scores["test"], calibrated, *splits["test"][1:], kinds)
    rates, beyond = decisions(scores, splits, names)
    sizes = ", ".join(
        f"{fold} {len(x[0])} segments of {len(np.unique(x[2]))} videos" for fold, x in splits.items()
    )
    print("# Calibration and promised error rates\n")
    print(
        f"Reduced CMU-MOSEI, official folds ({sizes}); scores of TF-IDF and logistic regressions; everything "
        "is chosen on validation and measured on test, with 95 % intervals by video. No random seed enters.\n"
    )
    print(report.table().to_markdown(), "\n")
    print(
        "Decisions at a promised risk, absent by `--risk` alone, present by `--fdr` alone: mean rates over "
        f"videos, share of unsure segments. In {beyond} of {2 * len(rates.rows)} cells the interval is above "
        "the risk.\n"
    )
    print(rates.to_markdown(), "\n")
    print(
        f"`python -m benchmarks.calibration SEGMENTS`, {time.monotonic() - started:.0f} s,",
        json.dumps(machine()),
    )


if __name__ == "__main__":
    main()
