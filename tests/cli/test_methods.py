"""Registered third-party methods, on the command line and in Python."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

import carat
from carat.config import methods
from carat.config.methods import METHODS
from carat.data.store import Store
from carat.models.layers.masking import masked_mean
from carat.utils.errors import RunError
from tests.unknown import draw_known, rewrite


class TextOnlyConfig(carat.MethodConfig):
    """A linear layer on the text alone."""

    name: str = "text-only"
    """Which method to train."""
    scale: float = Field(default=1.0, gt=0)
    """Factor of the logits."""


class TextOnly(carat.Model):
    def __init__(
        self, widths: Mapping[str, int], labels: Sequence[str], config: TextOnlyConfig | None = None
    ) -> None:
        super().__init__(widths, labels)
        self.scale = (config or TextOnlyConfig()).scale
        self.linear = nn.Linear(widths["text"], len(labels))

    def forward(self, features: Mapping[str, Tensor], masks: Mapping[str, Tensor]) -> carat.ModelOutputs:
        logits = self.linear(masked_mean(features["text"], masks["text"], dim=1))
        return carat.ModelOutputs.from_logits(self.scale * logits)

    def losses(
        self, outputs: carat.ModelOutputs, labels: Tensor, generator: torch.Generator | None = None
    ) -> dict[str, Tensor]:
        return {"total": F.binary_cross_entropy_with_logits(outputs.logits, labels)}


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(METHODS)
    carat.register_method("text-only", TextOnlyConfig)(TextOnly)
    yield
    METHODS.clear()
    METHODS.update(before)


def test_registered_method_works_on_the_command_line(
    registered: None, run, store: Store, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    options = ["--data", store.folder, "--training.epochs", 1, "--training.accelerator", "cpu"]
    code, out, _ = run("train", "--method", "text-only", "--help")
    assert code == 0
    assert "--method.scale" in out
    assert "--method.latent" not in out
    code, _, err = run(
        "train", "--method", "text-only", "--out", tmp_path / "run", *options, "--method.scale", 2
    )
    assert code == 0, err
    written = yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())
    assert written["method"] == {"name": "text-only", "scale": 2.0}
    code, _, err = run(
        "predict", tmp_path / "run", "--data", store.folder, "--split", "test", "--out", tmp_path / "p.csv"
    )
    assert code == 0, err
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    assert {row["id"] for row in rows} <= set(store.ids.tolist())
    code, out, _ = run("methods")
    assert "A linear layer on the text alone." in out
    code, _, err = run(
        "train", "--method", "text-only", "--out", tmp_path / "x", *options, "--method.scal", 2
    )
    assert (code, "Did you mean --method.scale?" in err) == (2, True)


def test_registered_method_works_in_python(registered: None, store: Store, tmp_path: Path) -> None:
    experiment = {
        "preset": "small",
        "method": {"name": "text-only", "scale": 3},
        "training": {"epochs": 1, "accelerator": "cpu"},
    }
    predictor = carat.load(carat.train(experiment, store, tmp_path / "run").folder)
    assert isinstance(predictor.model, TextOnly)
    assert predictor.model.scale == 3
    prediction = predictor.predict({"text": store.features("text", int(store.indices("test")[0]))})
    assert prediction.scores.keys() == set(store.label_names)
    assert prediction.attribution == {}
    again = carat.train(predictor.experiment, store, tmp_path / "again").folder
    weights = carat.load(again).model.state_dict()
    assert all(torch.equal(x, weights[name]) for name, x in predictor.model.state_dict().items())


@pytest.mark.parametrize(
    "arguments",
    ["train --method broken --data s --out r --method.x 3", "methods broken", "compare --methods broken"],
)
def test_broken_package_is_a_one_line_error(  # type: ignore[no-untyped-def]
    arguments: str, run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    points = [EntryPoint("broken", "nonsense_of_nobody:Model", methods.GROUP)]
    monkeypatch.setattr(methods, "entry_points", lambda group: points)
    command = arguments.split()
    code, out, err = run(*command, *(["--data", store.folder, "--out", "o"] if "compare" in command else []))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "method 'broken' of package nonsense_of_nobody:Model" in err
    assert "cannot be imported (ModuleNotFoundError: No module named 'nonsense_of_nobody')" in err
    code, out, _ = run("methods")
    assert code == 0
    assert "ModuleNotFoundError" in " ".join(out.split())
    assert "CARAT (Peng et al., AAAI 2024)." in out


def test_a_method_that_does_not_handle_unknown_labels_stops(
    registered: None, store: Store, tmp_path: Path
) -> None:
    """It never takes them as absent."""
    partial = rewrite(store, tmp_path / "s", draw_known(store))
    experiment = {"method": {"name": "text-only"}, "training": {"epochs": 1, "accelerator": "cpu"}}
    with pytest.raises(RunError, match="unless the losses of this method do not handle unknown labels"):
        carat.train(experiment, partial, tmp_path / "run")
