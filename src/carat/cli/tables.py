"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table
from rich.text import Text

from carat.config.baselines import METHOD_SECTIONS

if TYPE_CHECKING:  # some tables need no PyTorch
    from carat.data.checks.store import Finding
    from carat.evaluation.report import Report
    from carat.inference.predictor import Prediction


def show_summary(summary: dict[str, Any]) -> None:
    """What `carat.data.summary.summarize` found of a store."""
    splits, names = list(summary["splits"]), list(summary["co_occurrence"])
    print(f"{summary['name']}: {summary['samples']} samples in {summary['groups']} groups")
    print(f"fingerprint {summary['fingerprint']}" + (" (verified)" if "verified" in summary else ""))
    by_split = summary["labels"]
    rows = [["samples", *summary["splits"].values()]]
    rows += [[name, *(by_split[s]["positives"][name] for s in splits)] for name in names]
    rows += [["labels per sample", *(by_split[s]["cardinality"] for s in splits)]]
    rows += [["share without label", *(by_split[s]["without_label"] for s in splits)]]
    _table("Labels", ["", *splits], rows)
    together = summary["co_occurrence"]
    _table("Co-occurrence", ["", *names], [[a, *(together[a][b] for b in names)] for a in names])
    described = summary["modalities"]
    rows = [[key, *(str(x[key]) for x in described.values())] for key in ("width", "dtype", "source")]
    for key in next(iter(described.values()))["steps"]:
        rows.append([f"steps, {key}", *(x["steps"][key] for x in described.values())])
    rows += [[f"missing in {s}", *(x["missing"][s] for x in described.values())] for s in splits]
    _table("Modalities", ["", *described], rows)
    if summary["shared_groups"]:
        from carat.data.summary import describe_shared_groups

        print(f"warning: {describe_shared_groups(summary['shared_groups'])}")
    for m, modality in described.items():
        for line in modality["cleaning"]:
            print(f"{m}: {line}")
    for line in summary["notes"]:
        print(line)


def show_findings(findings: list[Finding]) -> None:
    """Verdicts of the doctor, one line each."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(show_header=False, box=None, pad_edge=False)
    for finding in findings:
        table.add_row(
            Text(finding.verdict, style=colours[finding.verdict]), Text(finding.check), Text(finding.message)
        )
    Console().print(table)


def show_report(report: Report) -> None:
    """Metrics with intervals, then label by label."""
    metrics = report.metrics
    rows = []
    for name, value in vars(metrics).items():
        if isinstance(value, float):
            low, high = report.intervals.get(name, (None, None))
            rows.append([name, value, f"{low:.4f} – {high:.4f}" if low is not None else ""])
    title = f"{report.split}: {report.samples} samples in {report.groups} groups"
    _table(title, ["metric", "value", "95 % interval"], rows)
    rows = [
        [name, f"{report.thresholds[name]:.2f}", *vars(label).values()]
        for name, label in metrics.labels.items()
    ]
    columns = ["label", "thr.", "true", "pred.", "P", "R", "F1", "AUROC", "AP"]
    _table("Labels", columns, rows)
    for note in metrics.notes:
        print(f"note: {note}")


def show_predictions(named: list[tuple[str, Prediction]]) -> None:
    """Some predictions with their ids."""
    if not named:
        return
    names = list(named[0][1].scores)
    rows = [
        [
            id,
            *(
                f"{x.scores[n]:.2f}{' *' if n in x.labels else '  '} {x.attribution.get(n, '')}"
                for n in names
            ),
        ]
        for id, x in named
    ]
    carriers = "; then the modality that carried it" if named[0][1].attribution else ""
    _table(f"First predictions (* present{carriers})", ["id", *names], rows)


def show_texts(predictions: list[Prediction]) -> None:
    """Texts, the labels of each from the highest score down, and the words that carried them."""
    for found in predictions:
        rows = [
            [
                name,
                f"{score:.2f}{' *' if name in found.labels else '  '}",
                ", ".join(found.words.get(name, [])),
            ]
            for name, score in sorted(found.scores.items(), key=lambda item: -item[1])
        ]
        _table(found.text, ["label", "score (* present)", "words that carried it"], rows)


def show_methods() -> None:
    """Every method with its essence."""
    rows = [[name, essence(name)] for name in METHOD_SECTIONS]
    _table("Methods, for carat train --method NAME", ["name", "what it is"], rows, right=False)


def essence(method: str) -> str:
    """What a method is, in one sentence."""
    return " ".join((METHOD_SECTIONS[method].__doc__ or "").split("\n\n")[0].split())


def show_method(name: str) -> None:
    """What a method is, its presets, and its keys as `--method.KEY` takes them."""
    section = METHOD_SECTIONS[name]
    print(f"{name}: {essence(name)}")
    print(f"Presets: {', '.join(section.PRESETS)}. Keys, with what they are by default:")
    _table("", ["key", "default", "what it is"], list(_keys(section, "method")), right=False)


def _keys(section: type[BaseModel], prefix: str) -> Iterator[list[str]]:
    for key, field in section.model_fields.items():
        if isinstance(field.default, BaseModel):
            yield from _keys(type(field.default), f"{prefix}.{key}")
        else:
            yield [f"{prefix}.{key}", str(field.default), field.description or ""]


def _table(title: str, columns: list[str], rows: list[list[Any]], right: bool = True) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):  # as Text: brackets in names are no markup
        table.add_column(Text(column), justify="right" if i and right else "left")
    for row in rows:
        table.add_row(*(Text(cell if isinstance(cell, str) else _number(cell)) for cell in row))
    Console().print(table)


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else str(value)
