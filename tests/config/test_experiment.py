"""Experiments: presets, precedence, and error messages."""

from __future__ import annotations

from pathlib import Path

import pytest

from carat.config.experiment import PRESETS, Experiment, load_experiment
from carat.utils.errors import ConfigError


def test_paper_preset_has_the_values_of_the_paper() -> None:
    paper = load_experiment()
    assert paper == Experiment()
    assert (paper.method.hidden, paper.method.latent) == (256, 64)
    assert paper.method.encoder.layers == {"text": 6, "visual": 4, "audio": 4}
    assert (paper.method.encoder.heads, paper.method.encoder.feedforward) == (8, 256)
    assert (paper.method.contrast.temperature, paper.method.contrast.queue) == (0.07, 8192)
    assert (paper.training.learning_rate, paper.training.epochs, paper.data.batch_size) == (5e-5, 20, 64)
    assert paper.method.weights.model_dump() == {
        "original": 0.01,
        "alpha": 0.1,
        "beta": 1.0,
        "contrast": 1.0,
        "mse_reconstruction": 1.0,
        "mse_alpha": 1.0,
        "mse_beta": 0.0,
        "aggregate": 1.0,
        "shuffled": 0.1,
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid(preset: str) -> None:
    assert isinstance(load_experiment(preset=preset), Experiment)


def test_later_sources_take_precedence(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("preset: small\ntraining: {epochs: 3, warmup: 0.2}\n")
    experiment = load_experiment(file, overrides={"training": {"epochs": 4}})
    assert experiment.training.epochs == 4
    assert experiment.training.warmup == 0.2
    assert experiment.method.hidden == 64
    assert load_experiment(file, preset="paper").method.hidden == 256


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epochz: 3}", r"unknown key 'training.epochz'; did you mean 'training.epochs'\?"),
        ("training: {epochs: many}", r"training.epochs: input should be a valid integer.*found 'many'"),
        ("training: {epochs: -3}", r"training.epochs: input should be greater than 0, found -3"),
        ("epochs: 3", r"unknown key 'epochs'; did you mean 'training.epochs'\?"),
        ("method: {encoder: {head: 3}}", r"did you mean 'method.encoder.heads'\?"),
        ("training: {learning_rate: .inf}", "training.learning_rate: input should be a finite number"),
        ("seed: 4294967296", "seed: input should be less than 4294967296"),
        ("seed: 2020-99-99", "not valid YAML"),
        ("method: {name: karat}", r"unknown method 'karat'; did you mean 'carat'\?"),
        ("preset: smal", r"unknown preset 'smal'; did you mean 'small'\?"),
        ("- 1\n- 2", r"expected a mapping, found list"),
        ("a: [1", r"line 1: not valid YAML"),
    ],
)
def test_errors_of_invalid_files_are_one_line(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message) as error:
        load_experiment(file)
    assert "\n" not in str(error.value)


def test_missing_file() -> None:
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read \(No such file"):
        load_experiment("nowhere.yaml")


def test_text_preset_exists_for_methods_behind_encoders_only() -> None:
    carat, plus, linear = (
        load_experiment(preset="text", overrides={"method": name}) for name in ("carat", "carat+", "linear")
    )
    assert carat.method.weights == plus.method.weights
    assert (carat.threshold.kind, plus.threshold.kind) == ("global", "interpolated")
    assert carat.method.encoder.layers["text"] == 0
    assert (linear.data.truncation, carat.data.truncation) == (True, True)
    assert carat.training.learning_rate == linear.training.learning_rate == 1e-3
    with pytest.raises(ConfigError, match="method mult has no preset 'text'; available: paper, small"):
        load_experiment(preset="text", overrides={"method": "mult"})
