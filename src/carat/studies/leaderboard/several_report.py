"""Report of a comparison on several stores: Markdown, JSON, HTML page and critical-difference diagram."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from carat.data.store import Store
from carat.evaluation.plots import draw_mean_ranks
from carat.evaluation.report import to_plain
from carat.studies.jobs import distinct
from carat.studies.leaderboard.leaderboards import RANKED, Leaderboards
from carat.studies.leaderboard.page import SCRIPT, STYLE, as_svg
from carat.studies.leaderboard.protocol import Protocol
from carat.studies.leaderboard.tables import About
from carat.utils.files import write_atomically, write_json
from carat.utils.tables import Table, escape_markdown
from carat.utils.templates import render

TEXT, DATA, PAGE, DIAGRAM = "comparison.md", "comparison.json", "comparison.html", "mean_ranks.svg"
FILES = (TEXT, DATA, PAGE, DIAGRAM)
TEMPLATE = Path(__file__).with_name("several.html.j2")

Stores = Mapping[str, tuple[Store, str]]
"""Store and its folder in the output folder, by name."""


def write_report(
    boards: Leaderboards,
    stores: Stores,
    about: Mapping[str, About | None],
    protocol: Protocol,
    out: Path,
) -> None:
    """Write comparison.md, .json and .html, and mean_ranks.svg if there are ranks to draw.

    Args:
        boards: ranked results.
        stores: store and its folder in `out`, by name.
        about: provenance by store; None if every method failed on it.
        protocol: how the methods were compared.
        out: output folder.
    """
    has_diagram = len(boards.mean_ranks) > 1
    if has_diagram:
        _draw(boards, out / DIAGRAM)
    else:
        (out / DIAGRAM).unlink(missing_ok=True)  # of an earlier call
    texts = _paragraphs(boards, [x for x in about.values() if x is not None], protocol)
    write_atomically(out / TEXT, _markdown(boards, stores, texts, has_diagram))
    write_json(out / DATA, to_plain(_content(boards, stores, protocol)))
    svg = as_svg((out / DIAGRAM).read_text(encoding="utf-8")) if has_diagram else ""
    page = render(
        TEMPLATE,
        style=STYLE,
        script=SCRIPT,
        metric=RANKED[boards.metric],
        paragraphs=texts,
        stores=list(stores),
        rows=_rows(boards),
        notes=boards.notes,
        diagram=svg,
        about=_store_table(stores).rows,
        links=[
            quote(f"{folder}/leaderboard.html") if boards.by_store[name] else ""
            for name, (_, folder) in stores.items()
        ],
    )
    write_atomically(out / PAGE, page)


def _draw(boards: Leaderboards, file: Path) -> None:
    critical = boards.test.critical_difference if boards.test is not None and boards.test.differ else None
    draw_mean_ranks(boards.mean_ranks, file, critical=critical, groups=boards.groups)


def _paragraphs(boards: Leaderboards, about: Sequence[About], protocol: Protocol) -> list[str]:
    """Protocol, result of the test, and provenance."""
    command = protocol.command(list(protocol.presets), "STORE STORE …", f" --metric {boards.metric}")
    texts = [
        f"Test {RANKED[boards.metric]}, mean ± standard deviation over the seeds "
        f"{', '.join(map(str, about[0].seeds))}, and rank on the store; {protocol.tuning}. Epoch, threshold "
        "and hyperparameters are selected on validation, never on test. The mean over the seeds is ranked on "
        "each store, 1 is the best, and methods with equal values get their mean rank.",
        boards.conclusion(),
        f"Trained at commit {distinct(x.commit for x in about)}; {distinct(x.processor for x in about)}, "
        f"torch {distinct(x.torch for x in about)}, one core per training run. Created by `{command}`.",
    ]
    if protocol.settings:
        texts.append(f"SETTINGS.yaml: `{json.dumps(protocol.settings)}`.")
    return texts


def _store_table(stores: Stores) -> Table:
    """Build the table of what the stores hold."""
    rows = [
        [
            name,
            str(len(store)),
            str(len(store.indices("test"))),
            ", ".join(store.label_names),
            ", ".join(store.modalities),
            store.manifest.fingerprint[:16],
        ]
        for name, (store, _) in stores.items()
    ]
    return Table(["store", "samples", "test samples", "labels", "modalities", "fingerprint"], rows)


def _markdown(boards: Leaderboards, stores: Stores, texts: Sequence[str], has_diagram: bool) -> str:
    protocol, conclusion, *provenance = (
        textwrap.fill(escape_markdown(text), 118, break_on_hyphens=False, break_long_words=False)
        for text in texts
    )
    described = _store_table(stores)
    links = [
        f"[leaderboard]({quote(folder)}/leaderboard.md)" if boards.by_store[name] else ""
        for name, (_, folder) in stores.items()
    ]
    linked = Table(
        [*described.columns, "leaderboard"],
        [[*row, link] for row, link in zip(described.rows, links, strict=True)],
    )
    parts = [f"# Comparison on {len(stores)} stores", protocol, boards.table().to_markdown()]
    parts += ["\n".join(f"- {escape_markdown(note)}" for note in boards.notes)] if boards.notes else []
    parts += ["## Do the methods differ?", conclusion]
    parts += [f"![Mean ranks]({DIAGRAM})"] if has_diagram else []
    parts += ["## Stores", linked.to_markdown(), "## Reproduction", *provenance]
    return "\n\n".join(parts) + "\n"


def _content(boards: Leaderboards, stores: Stores, protocol: Protocol) -> dict[str, Any]:
    """Everything that the report shows, as plain data."""
    return {
        "metric": boards.metric,
        "preset": protocol.preset,
        "settings": protocol.settings,
        "budget": protocol.budget,
        "stores": [
            {
                "name": name,
                "folder": folder,
                "fingerprint": store.manifest.fingerprint,
                "samples": len(store),
                "test_samples": len(store.indices("test")),
                "labels": store.label_names,
                "modalities": store.modalities,
            }
            for name, (store, folder) in stores.items()
        ],
        "methods": [
            {
                "method": method,
                "mean_rank": boards.mean_ranks.get(method),
                "values": {s: x for s in stores if (x := boards.values(s, method))},
                "ranks": {s: ranks[method] for s, ranks in boards.ranks.items() if method in ranks},
                "failed": {s: failed[method] for s, failed in boards.failed.items() if method in failed},
            }
            for method in boards.methods
        ],
        "test": None if boards.test is None else asdict(boards.test),
        "conclusion": boards.conclusion(),
        "groups_without_difference": boards.groups,
        "notes": boards.notes,
    }


def _rows(boards: Leaderboards) -> list[dict[str, Any]]:
    """Rows of the table on the page: sort keys and texts."""
    rows = []
    for method, shown, *texts in boards.table().rows:
        keys = [float(np.mean(x)) if (x := boards.values(s, method)) else -1.0 for s in boards.by_store]
        mean = boards.mean_ranks.get(method, float(len(boards.methods) + 1))
        rows.append({"method": method, "mean": (mean, shown), "cells": list(zip(keys, texts, strict=True))})
    return rows
