"""Summaries of a run: two lines of text, or rows of a table."""

from __future__ import annotations

import textwrap
from pathlib import Path

from carat.config.experiment import Experiment
from carat.runs.card import RunCard

WIDTH = 100
"""Maximum width of the second line of `describe_run`, in characters."""


def describe_run(kind: str, folder: Path, card: RunCard, experiment: Experiment, more: str = "") -> str:
    """Summarize a run in two lines: folder, method, best epoch and validation micro-F1.

    Args:
        kind: name of the class, for the representation.
        folder: folder of the run.
        card: card of the run.
        experiment: experiment of the run.
        more: appended to the second line, truncated to its maximum width.
    """
    epoch = f"best epoch {card.epoch}" if card.epoch else "no epochs"
    line = f"{experiment.method.name}, {epoch}, validation micro-F1 {_score(card, 'micro_f1')}"
    line = textwrap.shorten(f"{line}; {more}" if more else line, WIDTH, placeholder=" …")
    return f"{kind}({str(folder)!r},\n  {line})"


def run_rows(folder: Path, card: RunCard, experiment: Experiment) -> list[list[str]]:
    """Summarize a run as rows of name and value, for a table."""
    thresholds = sorted(set(card.thresholds.values()))
    return [
        ["folder", str(folder)],
        ["method", experiment.method.name],
        ["store", f"{card.store}, fingerprint {card.fingerprint[:16]}"],
        ["labels", ", ".join(card.labels)],
        ["modalities", ", ".join(f"{m} ({x.width})" for m, x in card.modalities.items())],
        *(["origin", line] for line in (card.origin.summary(card.labels) if card.origin else ())),
        ["best epoch", str(card.epoch)],
        ["threshold", " – ".join(f"{x:.2f}" for x in dict.fromkeys((thresholds[0], thresholds[-1])))],
        *([f"validation {name}", _score(card, name)] for name in card.validation),
        *(["note", note] for note in card.notes),
    ]


def _score(card: RunCard, metric: str) -> str:
    value = card.validation.get(metric)
    return "undefined" if value is None else f"{value:.4f}"
