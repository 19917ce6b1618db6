"""Model cards: written by training, updated by commands, and safe whatever names and files hold."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

import carat
from carat.data.store import Store
from carat.runs.card import read_run
from carat.runs.model_card import describe_model, to_markdown
from carat.training.train import TrainedRun
from carat.utils.errors import RunError

SECTIONS = (
    "## Model Details",
    "## Uses",
    "### Out-of-Scope Use",
    "## Bias, Risks, and Limitations",
    "## Training Details",
    "## Evaluation",
    "## Calibration",
    "## Environmental Impact",
)


@pytest.fixture
def folder(trained: TrainedRun, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained.folder, tmp_path / "my-run"))


def metadata(text: str) -> Any:
    start, block, _ = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(block)


def test_training_writes_a_card(trained: TrainedRun, store: Store) -> None:
    text = (trained.folder / "model_card.md").read_text()
    assert metadata(text)["license"] == "unknown"
    assert [x for x in SECTIONS if x not in text] == []
    assert "**License of the data:** unknown" in text
    assert "**Carbon emitted:** not measured" in text
    assert "chosen on this split, so that metrics are optimistic" in text
    content = json.loads((trained.folder / "model_card.json").read_text())
    evaluation = content["evaluation"]
    assert (evaluation["split"], evaluation["samples"]) == ("valid", len(store.indices("valid")))
    assert evaluation["metrics"]["micro_f1"]["value"] == pytest.approx(trained.card.validation["micro_f1"])
    assert list(evaluation["labels"]) == store.label_names
    low, high = evaluation["labels"]["happy"]["interval"]
    assert low <= evaluation["labels"]["happy"]["f1"] <= high
    assert content["training"]["seconds"] > 0
    assert list(content["calibration"]["labels"]) == store.label_names


def test_metrics_of_a_split(folder: Path, store: Store) -> None:
    made = carat.make_model_card(folder, store, license="cc-by-4.0", device="cpu")
    report = carat.evaluate(folder, store, device="cpu")
    assert made["evaluation"]["metrics"]["micro_f1"]["value"] == report.metrics.micro_f1
    assert made["evaluation"]["metrics"]["micro_f1"]["interval"] == list(report.intervals["micro_f1"])
    values = metadata((folder / "model_card.md").read_text())
    assert values["license"] == "cc-by-4.0"
    (results,) = values["model-index"][0]["results"]
    assert results["dataset"] == {"name": "synthetic", "type": "synthetic", "split": "test"}
    assert results["metrics"][0]["value"] == round(report.metrics.micro_f1, 4)
    carat.calibrate_run(folder, store, kind="none", device="cpu")  # keeps metrics and license
    kept = json.loads((folder / "model_card.json").read_text())
    assert kept["evaluation"] == json.loads(json.dumps(made["evaluation"]))
    assert kept["license"] == "cc-by-4.0"
    assert {x["kind"] for x in kept["calibration"]["labels"].values()} == {"none"}


def test_damaged_cards_are_replaced_by_measuring(folder: Path, store: Store) -> None:
    for content in ("[]", '{"evaluation": {"split": "x"}}', '{"evaluation": 3}', "{"):
        (folder / "model_card.json").write_text(content)
        with pytest.raises(RunError, match=r"model_card\.json: ") as caught:
            carat.make_model_card(folder)
        assert "\n" not in str(caught.value)
    carat.make_model_card(folder, store, device="cpu")
    for name in ("model_card.json", "model_card.md"):
        (folder / name).unlink()
    assert carat.make_model_card(folder)["evaluation"] is None
    assert "Not measured." in (folder / "model_card.md").read_text()


def test_hostile_names(folder: Path) -> None:
    card, experiment = read_run(folder)
    card = card.model_copy(update={"store": "<script>|\n---\nlicense: mit", "notes": ["<img src=x>\n# a"]})
    text = to_markdown(describe_model("<b>\n---\n", card, experiment, {"packages": 3, "seconds": None}))
    assert metadata(text)["license"] == "unknown"
    assert "\n# a" not in text
    assert "\n<" not in text
    assert "<script>" not in text.replace("\\<script>", "")


def test_on_the_command_line(run: Any, folder: Path, store: Store) -> None:
    code, _, err = run("card", folder, "--data", store.folder, "--split", "valid", "--license", "mit")
    assert (code, "model_card.md" in err) == (0, True)
    assert json.loads((folder / "model_card.json").read_text())["evaluation"]["split"] == "valid"
    code, _, err = run("card", folder.parent / "none")
    assert (code, err.count("\n")) == (2, 1)
