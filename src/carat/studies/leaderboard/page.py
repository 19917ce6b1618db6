"""The leaderboard as a self-contained HTML page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from carat.evaluation.bootstrap import Paired
from carat.evaluation.formatting import in_brackets, mean_and_spread
from carat.studies.leaderboard.evaluation import MethodResult
from carat.studies.leaderboard.missing_modalities import DROP_PROBABILITIES
from carat.studies.leaderboard.tables import (
    About,
    corpora_table,
    cost_table,
    difference,
    label_table,
    precision_and_recall,
    threshold_table,
)
from carat.utils.files import write_atomically
from carat.utils.plotting import COLORS, heat_map, new_figure, save
from carat.utils.templates import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("page.html.j2")
STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
MARKERS = "os^Dvp*XPh<>"


def write_page(results: Sequence[MethodResult], about: About, file: Path) -> None:
    """Write the page: a sortable table with intervals, F1 by label, missing modalities and costs.

    Args:
        results: results of all methods, the best first.
        about: provenance of the results.
        file: HTML file to write.
    """
    text = render(
        TEMPLATE,
        style=STYLE,
        script=SCRIPT,
        about=about,
        paragraphs=about.paragraphs(),
        rarest=results[0].rarest,
        rows=_rows(results),
        scale=_scale(results),
        tables=[
            ("Per-label thresholds", threshold_table(results).to_html()),
            ("F1 by label", label_table(results, about.labels).to_html()),
            *(
                [("Micro-F1 / macro-F1 by corpus", corpora_table(results).to_html())]
                * bool(results[0].corpora)
            ),
            ("Costs", cost_table(results).to_html()),
        ],
        figures=[
            ("Modalities dropped at random", _svg(_curves(results))),
            ("Subsets of modalities at test time", _svg(_subsets(results))),
        ],
    )
    write_atomically(file, text)


def _rows(results: Sequence[MethodResult]) -> list[dict[str, Any]]:
    """Rows of the main table: sort keys and texts."""
    low, high = _scale(results)
    rows = []
    for result in results:
        left, right = result.interval["micro_f1"]
        positions = [
            float(np.clip((x - low) / (high - low), 0, 1) * 100)
            for x in (left, result.mean("micro_f1"), right)
        ]
        against = result.against.get("micro_f1")
        own, literature = precision_and_recall(result)
        rows.append(
            {
                "method": result.method,
                "micro": (result.mean("micro_f1"), mean_and_spread(result.values("micro_f1"))),
                "interval": in_brackets((left, right)),
                "positions": positions,
                "against": (against.difference if against else 0.0, *_lines(against)),
                "macro": (result.mean("macro_f1"), mean_and_spread(result.values("macro_f1"))),
                "macro_against": _lines(result.against.get("macro_f1")),
                "rarest": (result.mean("rarest_f1"), mean_and_spread(result.values("rarest_f1"))),
                "accuracy": (result.mean("accuracy"), mean_and_spread(result.values("accuracy"))),
                "own": own,
                "literature": literature,
                "parameters": (result.parameters, f"{result.parameters:,}"),
            }
        )
    return rows


def _lines(paired: Paired | None) -> tuple[str, str, str]:
    """Difference, its interval and p-value, and the CSS class of its color."""
    text, _, rest = difference(paired).partition(" ")
    low, high = paired.interval if paired else (0.0, 0.0)
    return text, rest, "up" if low > 0 else "down" if high < 0 else ""


def _scale(results: Sequence[MethodResult]) -> tuple[float, float]:
    """Bounds of the axis of the intervals, rounded outward to multiples of 0.05."""
    ends = np.array([result.interval["micro_f1"] for result in results])
    finite = ends[np.isfinite(ends)]
    if not len(finite):
        return 0.0, 1.0
    return float(np.floor(finite.min() * 20) / 20), float(np.ceil(finite.max() * 20) / 20)


def _curves(results: Sequence[MethodResult]) -> Figure:
    """Plot micro-F1 over the probability of dropping a modality."""
    figure = new_figure(7.5, 4.6)
    axes = figure.subplots()
    for i, result in enumerate(results):
        values = [result.missing.get(f"{p:.0%} away", (0, float("nan")))[1] for p in DROP_PROBABILITIES]
        axes.plot(
            [0.0, *DROP_PROBABILITIES],
            [result.mean("micro_f1"), *values],
            color=COLORS[i % len(COLORS)],
            marker=MARKERS[i % len(MARKERS)],
            markersize=5,
            linestyle="-" if i < len(COLORS) else "--",
            label=result.method,
        )
    axes.set(xlabel="probability of dropping a modality", ylabel="test micro-F1")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
    return figure


def _subsets(results: Sequence[MethodResult]) -> Figure:
    """Plot micro-F1 of every subset of modalities as a heat map."""
    names = [name for name in results[0].missing if name.startswith("only ")]
    values = np.array([[x.mean("micro_f1"), *(x.missing[name][1] for name in names)] for x in results])
    figure = new_figure(7.5, 1.6 + 0.33 * len(results))
    axes = figure.subplots()
    columns = ["all", *(name.removeprefix("only ") for name in names)]
    heat_map(axes, values, [x.method for x in results], columns, highest=None)
    return figure


def _svg(figure: Figure) -> str:
    """Render a figure as an `<svg>` element without metadata."""
    buffer = io.BytesIO()
    save(figure, buffer)
    return as_svg(buffer.getvalue().decode())


def as_svg(text: str) -> str:
    """Cut an `<svg>` element without metadata out of an SVG file."""
    return re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
