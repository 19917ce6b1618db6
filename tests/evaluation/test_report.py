from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from carat.evaluation.plots import draw_curves
from carat.evaluation.report import Report, make_report


@pytest.fixture(scope="module")
def report() -> Report:
    """Of three labels; the second one does not occur, and its name is hostile."""
    random = np.random.default_rng(0)
    labels = (random.random((31, 3)) < 0.5).astype(int)
    labels[:, 1] = 0
    thresholds = {"a": 0.4, "<script>b": 0.5, "c": 0.6}
    return make_report("test", random.random((31, 3)), labels, np.arange(31), thresholds, ["<img src=x>"])


def test_metrics_as_a_frame(report: Report) -> None:
    pytest.importorskip("pandas")
    frame = report.to_frame()
    assert list(frame) == ["metric", "value", "low", "high"]
    by_name = frame.set_index("metric")
    assert by_name.loc["micro_f1"].tolist() == [report.metrics.micro_f1, *report.intervals["micro_f1"]]
    assert by_name.loc["lrap"].isna().tolist() == [False, True, True]  # without an interval
    floats = [name for name, value in vars(report.metrics).items() if isinstance(value, float)]
    assert frame["metric"].tolist() == floats
    assert len(floats) == 11


def test_labels_as_a_frame(report: Report) -> None:
    pytest.importorskip("pandas")
    frame = report.label_frame().set_index("label")
    assert frame.index.tolist() == ["a", "<script>b", "c"]
    assert frame["threshold"].tolist() == [0.4, 0.5, 0.6]
    assert frame["f1"].isna().tolist() == [False, True, False]
    assert frame.loc["c", "average_precision"] == report.metrics.labels["c"].average_precision
    assert frame["positives"].dtype == int


def test_a_report_in_a_notebook(report: Report) -> None:
    page = report._repr_html_()
    assert page.count("<table>") == page.count("</table>") == 2
    assert "<caption>test: 31 samples in 31 groups</caption>" in page
    assert f"<td>{report.metrics.micro_f1:.3f}</td>" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;b" in page
    assert "<p>&lt;img src=x&gt;</p>" in page


def test_json_report_has_no_nan() -> None:
    random = np.random.default_rng(0)
    labels = (random.random((31, 3)) < 0.5).astype(int)
    labels[:, 1] = 0
    report = make_report(
        "test", random.random((31, 3)), labels, np.arange(31), {"a": 0.4, "b": 0.5, "c": 0.6}, ["a note"]
    )
    text = json.dumps(report.to_json(), allow_nan=False)
    plain = json.loads(text)
    assert plain["samples"] == plain["groups"] == 31
    assert plain["thresholds"] == {"a": 0.4, "b": 0.5, "c": 0.6}
    assert plain["metrics"]["labels"]["b"]["f1"] is None
    assert plain["metrics"]["notes"] == ["label 'b' does not occur: its metrics are nan", "a note"]
    low, high = plain["intervals"]["micro_f1"]
    assert low < plain["metrics"]["micro_f1"] < high


def test_curves_are_written_as_svg(tmp_path: Path) -> None:
    keys = ("train/total", "valid/micro_f1", "valid/macro_f1", "valid/accuracy")
    history = [{"epoch": float(e)} | dict.fromkeys(keys, 1 / e) for e in (1, 2, 3)]
    for name in ("a.svg", "b.svg"):
        draw_curves(history, 2, tmp_path / name)
    svg = (tmp_path / "a.svg").read_text()
    assert svg.startswith("<?xml")
    assert len(svg) > 5000
