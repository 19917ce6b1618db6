from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from carat.evaluation.plots import draw_curves
from carat.evaluation.report import make_report


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
