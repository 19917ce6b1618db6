"""Reports of evaluation and calibration on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from carat.cli.tables import DIGITS
from carat.utils.errors import printable
from carat.utils.tables import Table

if TYPE_CHECKING:  # scikit-learn takes a second to import
    from carat.evaluation.conformal import DecisionRates
    from carat.evaluation.report import Report

CORPUS_METRICS = ("micro_f1", "macro_f1", "accuracy")


def show_report(report: Report) -> None:
    """Print the metrics with intervals, then the metrics of each label."""
    metrics = report.metrics
    rows = []
    for name, value in vars(metrics).items():
        if isinstance(value, float):
            ends = [f"{end:.{DIGITS}f}" for end in report.intervals.get(name, ())]
            rows.append([name, value, " – ".join(ends)])
    if report.graded is not None:
        for name, value in report.graded.means.items():
            ends = [f"{end:.{DIGITS}f}" for end in report.graded.intervals[name]]
            rows.append([f"{name} (graded)", value, " – ".join(ends)])
    title = f"{report.split}: {report.samples} samples in {report.groups} groups"
    Table(["metric", "value", "95 % interval"], rows, title, DIGITS).show()
    rows = []
    for name, label in metrics.labels.items():
        positives, *others = [value for key, value in vars(label).items() if key != "known"]
        true = positives if label.known == report.samples else f"{positives}/{label.known}"
        rows.append([name, f"{report.thresholds[name]:.2f}", true, *others])
    columns = ["label", "thr.", "true", "pred.", "P", "R", "F1", "AUROC", "AP"]
    Table(columns, rows, "Labels", DIGITS).show()
    if report.graded is not None:
        report.graded.to_table(DIGITS).show()
    if report.corpora:
        rows = [[name, x.samples, *_with_intervals(x)] for name, x in report.corpora.items()]
        Table(["corpus", "samples", *CORPUS_METRICS], rows, "Corpora, with 95 % intervals", DIGITS).show()
    if report.floors:
        from carat.evaluation.floors import floor_table

        floor_table(report.floors).show()
    if report.subsets:
        report.subsets.table().show()
    if report.agreement:
        x = report.agreement
        rows = [["run", x.run], ["labels of the store", x.labels], ["ceiling", x.ceiling]]
        title = "Against one annotator, if grades are shares of votes"
        Table(["predictions", "expected micro-F1"], rows, title, DIGITS).show()
    if report.calibration:
        report.calibration.table().show()
    if report.decisions:
        _decision_table(report.decisions).show()
    for note in metrics.notes:
        print(printable(f"note: {note}"))


def _with_intervals(report: Report) -> list[str]:
    """The metrics that are shown for each corpus, with their intervals."""
    cells = []
    for name in CORPUS_METRICS:
        ends = " – ".join(f"{end:.{DIGITS}f}" for end in report.intervals.get(name, ()))
        cells.append(f"{getattr(report.metrics, name):.{DIGITS}f} ({ends})")
    return cells


def _decision_table(rates: dict[str, DecisionRates]) -> Table:
    rows = []
    for name, x in rates.items():
        pairs = (
            (x.false_negatives, x.false_negatives_interval),
            (x.false_discoveries, x.false_discoveries_interval),
        )
        cells = [f"{value:.3f} ({low:.3f} – {high:.3f})" for value, (low, high) in pairs]
        rows.append([name, *cells, f"{x.unsure:.1%}"])
    columns = ["label", "false negatives", "false discoveries", "unsure"]
    return Table(columns, rows, "Decisions: mean rates over groups, with 95 % intervals")
