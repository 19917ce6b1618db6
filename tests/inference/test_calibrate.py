"""Calibrated runs: what they return, what stays as it is, and runs that were not calibrated."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.data.store import Store
from carat.inference.shards import predict_in_shards
from carat.runs.card import read_run, write_card
from carat.training.train import TrainedRun
from carat.utils.errors import RunError
from tests.runs.test_card import rewrite

SCHEMA1 = Path(__file__).parents[1] / "runs" / "schema1" / "carat"


@pytest.fixture
def run_folder(trained: TrainedRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.folder, tmp_path / "run"))


@pytest.fixture
def platt(run_folder: Path, store: Store) -> Path:
    """A run whose labels all have maps other than none."""
    carat.calibrate_run(run_folder, store, kind="platt")
    card = json.loads((run_folder / "run.json").read_text())
    assert {x["kind"] for x in card["calibration"]["labels"].values()} <= {"platt", "temperature", "none"}

    def skew(content: dict[str, Any]) -> dict[str, Any]:
        for label in content["calibration"]["labels"].values():
            label |= {"kind": "platt", "a": 0.5, "b": 0.5, "c": -1.0}
        return content

    rewrite(run_folder, skew)
    return run_folder


def test_training_calibrates(trained: TrainedRun, store: Store) -> None:
    calibration = trained.card.calibration
    assert calibration is not None
    assert list(calibration.labels) == list(calibration.bounds) == store.label_names
    assert (calibration.split, calibration.fingerprint) == ("valid", store.manifest.fingerprint)
    assert calibration.samples == len(store.indices("valid"))
    again = carat.calibrate_run(shutil.copytree(trained.folder, trained.folder.parent / "again"), store)
    assert again.calibration == calibration
    assert again.figure.is_file()


def test_calibration_changes_scores_and_no_prediction(platt: Path, store: Store) -> None:
    raw, calibrated = carat.load(platt, "cpu", calibrated=False), carat.load(platt, "cpu")
    assert not raw.scale.calibrated
    assert calibrated.scale.calibrated
    rows, scores, _ = raw.score(store, "test")
    again, mapped, _ = calibrated.score(store, "test")
    np.testing.assert_array_equal(rows, again)
    s = scores.astype(np.float64)
    np.testing.assert_allclose(mapped, 1 / (1 + np.exp(1 - 0.5 * np.log(s / (1 - s)))))
    np.testing.assert_array_equal(calibrated.score(store, "test", calibrated=False)[1], scores)
    for (_, x), (_, y) in zip(
        raw.predict_store(store, "test"), calibrated.predict_store(store, "test"), strict=True
    ):
        assert x.labels == y.labels
        assert x.attribution == y.attribution
        assert list(x.scores.values()) != list(y.scores.values())
    before, after = raw.evaluate(store, "test"), calibrated.evaluate(store, "test")
    assert before.calibration is None
    assert after.calibration is not None
    assert after.calibration.all.before.calibration_error == pytest.approx(before.metrics.calibration_error)
    assert after.calibration.all.after.calibration_error == pytest.approx(after.metrics.calibration_error)
    for name in ("micro_f1", "macro_f1", "accuracy", "hamming_loss", "subset_accuracy"):
        assert getattr(before.metrics, name) == getattr(after.metrics, name)
    assert before.thresholds == carat.load(platt, "cpu").card.thresholds
    assert after.thresholds != before.thresholds
    for name, metrics in before.metrics.labels.items():
        assert after.metrics.labels[name].auroc == pytest.approx(metrics.auroc, nan_ok=True)
    json.dumps(after.to_json(), allow_nan=False)


def test_decisions_of_predictions(platt: Path, store: Store) -> None:
    predictor = carat.load(platt, "cpu", risk=0.3, false_discovery=0.4)
    for _, prediction in predictor.predict_store(store, "test"):
        assert list(prediction.decisions) == store.label_names
        assert set(prediction.decisions.values()) <= {"present", "absent", "unsure"}
        present = [name for name, x in prediction.decisions.items() if x == "present"]
        assert set(present) <= set(prediction.labels)
        assert not any(prediction.decisions[name] == "absent" for name in prediction.labels)
    report = predictor.evaluate(store, "test")
    assert list(report.decisions) == store.label_names
    assert any("this assumes that new groups" in note for note in report.metrics.notes)
    raw = carat.load(platt, "cpu", calibrated=False, risk=0.3, false_discovery=0.4)
    expected = [x.decisions for _, x in raw.predict_store(store, "test")]
    assert [x.decisions for _, x in predictor.predict_store(store, "test")] == expected
    assert not carat.load(platt, "cpu").predict(store[0].features).decisions


def test_risks_are_rounded_down(platt: Path) -> None:
    lines = carat.load(platt, "cpu", risk=0.159).scale.guarantee()
    assert "at most 15% of the samples with the label are called absent" in lines[0]
    for risk in (0.001, 0.51, float("nan")):
        with pytest.raises(RunError, match=r"a risk must be between 0\.01 and 0\.5, found"):
            carat.load(platt, "cpu", risk=risk)


def test_runs_without_calibration(run_folder: Path, store: Store) -> None:
    card, _ = read_run(run_folder)
    write_card(run_folder, card.model_copy(update={"calibration": None}))
    assert "calibration" not in json.loads((run_folder / "run.json").read_text())
    predictor = carat.load(run_folder, "cpu")
    assert predictor.thresholds == predictor.card.thresholds
    assert predictor.evaluate(store).calibration is None
    with pytest.raises(RunError, match="has no calibration, so that no risk can be promised; calibrate it"):
        carat.load(run_folder, "cpu", risk=0.1)


def test_runs_of_the_first_version_are_calibrated(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(SCHEMA1, tmp_path / "old"))
    before = carat.load(folder, "cpu")
    card = before.card
    widths = before.widths
    store = carat.make_synthetic(tmp_path / "store", samples=300)
    if widths != {m: x.width for m, x in store.manifest.modalities.items()}:
        pytest.skip("the stored run has other features")
    carat.calibrate_run(folder, store)
    after = carat.load(folder, "cpu")
    assert after.card.thresholds == card.thresholds
    assert after.card.calibration is not None


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("labels", "sad", "kind"), "magic", "labels.sad.kind"),
        (("labels", "sad", "a"), -1.0, r"labels\.sad\.a: .*greater than or equal to 0"),
        (
            ("labels", "sad"),
            {"kind": "beta", "a": 0, "b": 0, "positives": 1, "known": 2},
            "does not increase",
        ),
        (
            ("labels", "sad"),
            {"kind": "isotonic", "x": [0.5, 0.1], "y": [0, 1], "positives": 1, "known": 2},
            "increasing points",
        ),
        (("labels",), {}, "labels none, expected happy"),
        (("risks",), [0.1], "expected one per risk"),
        (("risks",), [], "risks must rise"),
        (("bounds", "sad", "absent"), [0.1], "expected one per risk"),
    ],
)
def test_damaged_calibrations(path: tuple[str, ...], value: Any, message: str, run_folder: Path) -> None:
    def change(content: dict[str, Any]) -> dict[str, Any]:
        inner = content["calibration"]
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return content

    rewrite(run_folder, change)
    with pytest.raises(RunError, match=message) as caught:
        carat.load(run_folder, "cpu")
    assert "\n" not in str(caught.value)


def test_sorted_keys_change_no_calibration(platt: Path, store: Store) -> None:
    expected = carat.load(platt, "cpu", risk=0.3).predict(store[0].features)
    rewrite(platt, lambda content: content, sort_keys=True)
    assert carat.load(platt, "cpu", risk=0.3).predict(store[0].features) == expected


def test_shards_have_the_same_scores_and_decisions(
    platt: Path, store: Store, tmp_path: Path, in_this_process: Any
) -> None:
    predictor = carat.load(platt, "cpu", calibrated=False, risk=0.3)
    count = predict_in_shards(
        platt, store.folder, tmp_path / "out", split="test", ending=".csv", calibrated=False, risk=0.3
    )
    with (tmp_path / "out" / "part-00000.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count
    for row, (id, prediction) in zip(rows, predictor.predict_store(store, "test"), strict=True):
        assert row["id"] == id
        assert float(row["score_sad"]) == prediction.scores["sad"]
        assert row["decision_sad"] == prediction.decisions["sad"]


def test_commands(run: Any, platt: Path, store: Store, tmp_path: Path) -> None:
    code, out, err = run("calibrate", platt, "--data", store.folder)
    assert (code, "Calibration, with 95 % intervals" in out) == (0, True)
    assert (platt / "reliability.svg").is_file()
    assert "run.json" in err
    figure = tmp_path / "figure.svg"
    code, out, _ = run("evaluate", platt, "--data", store.folder, "--risk", ".3", "--reliability", figure)
    assert (code, "unsure" in out, figure.is_file()) == (0, True, True)
    table = tmp_path / "scores.csv"
    code, out, err = run(
        *("predict", platt, "--data", store.folder, "--split", "test", "--out", table),
        *("--risk", ".3", "--fdr", ".3", "--uncalibrated"),
    )
    assert (code, "promised for each label" in err) == (0, True)
    assert "decision_sad" in table.read_text().splitlines()[0]
    code, _, err = run("predict", platt, "--data", store.folder, "--out", table, "--risk", ".6")
    assert code == 2
    assert "--risk" in err
    code, _, err = run("evaluate", platt, "--data", store.folder, "--reliability", "figure.png")
    assert (code, "ends in .svg" in err) == (2, True)


def test_calibration_can_be_chosen(tiny: Any, store: Store, tmp_path: Path) -> None:
    values = tiny.model_dump() | {"calibration": {"kind": "none"}}
    values["training"]["epochs"] = 1
    made = carat.train(values, store, tmp_path / "plain")
    assert made.card.calibration is not None
    assert {x.kind for x in made.card.calibration.labels.values()} == {"none"}
    assert not carat.load(made).scale.calibrated
    assert carat.load(made, risk=0.3).predict(store[0].features).decisions
