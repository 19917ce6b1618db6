"""Contract of all methods."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import carat
from carat.config.experiment import load_experiment
from carat.config.methods import METHODS
from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.inference.export import export
from carat.models.base import Model, TrainingData
from carat.models.build import build_model
from carat.training.train import train
from carat.utils.errors import ConfigError
from tests.models.carat.test_model import LABELS, WIDTHS, B, batch

SUBSETS = [present for n in (1, 2, 3) for present in combinations(WIDTHS, n)]
TRAINED = [name for name in METHODS if name not in ("prior", "br", "cc", "lp")]
"""Methods that are trained by gradient descent."""


def small(name: str, widths: dict[str, int] | None = None, dropout: float = 0.0, **changes: Any) -> Model:
    """A prepared method of the preset `small`, with the given dropout where it has any."""
    torch.manual_seed(0)
    section = load_experiment(preset="small", overrides={"method": {"name": name} | changes}).method
    values = _with_dropout(section.model_dump(), dropout)
    method = build_model(type(section).model_validate(values), widths or WIDTHS, LABELS)
    features, masks, labels = batch()
    chosen = [{m: x[m] for m in widths or WIDTHS} for x in (features, masks)]
    method.prepare(TrainingData(labels, [(*chosen, labels)]))
    return method


def _with_dropout(values: dict[str, Any], dropout: float) -> dict[str, Any]:
    found = {k: _with_dropout(v, dropout) if isinstance(v, dict) else v for k, v in values.items()}
    return {k: dropout if "dropout" in k else v for k, v in found.items()}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_can_be_constructed_alone(name: str) -> None:
    method = METHODS[name]
    section = method.config_class()
    assert section().name == name
    assert {"paper", "small"} <= section.PRESETS.keys()
    model = method.model_class()({"text": 3, "smell": 5}, ["a", "b"])
    assert isinstance(model, Model)
    assert model.labels == ("a", "b")
    assert model.max_length.keys() == {"text", "smell"}
    built = build_model(section(), {"text": 3, "smell": 5}, ["a", "b"])
    assert {k: x.shape for k, x in model.state_dict().items()} == {
        k: x.shape for k, x in built.state_dict().items()
    }


@pytest.mark.parametrize("name", METHODS)
def test_padding_and_absent_values_have_no_effect(name: str) -> None:
    method = small(name).eval()
    features, masks, _ = batch()
    clean = method.score(features, masks)
    assert clean.scores.shape == (B, len(LABELS))
    assert ((clean.scores >= 0) & (clean.scores <= 1)).all()
    noisy = method.score({m: torch.where(masks[m][..., None], x, 1e3) for m, x in features.items()}, masks)
    torch.testing.assert_close(noisy.scores, clean.scores, atol=1e-5, rtol=1e-5)
    longer = {m: F.pad(x, (0, 0, 0, 9)) for m, x in features.items()}
    wider = method.score(longer, {m: F.pad(mask, (0, 9)) for m, mask in masks.items()})
    torch.testing.assert_close(wider.scores, clean.scores, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_scores_do_not_depend_on_the_batch(name: str) -> None:
    method = small(name).eval()
    features, masks, _ = batch()
    together = method.score(features, masks)
    for i in range(0, B, 3):
        alone = method.score({m: x[[i]] for m, x in features.items()}, {m: x[[i]] for m, x in masks.items()})
        torch.testing.assert_close(alone.scores[0], together.scores[i], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_score_equals_forward(name: str) -> None:
    method = small(name).eval()
    features, masks, _ = batch()
    torch.testing.assert_close(method.score(features, masks).scores, method(features, masks).scores)


@pytest.mark.parametrize("name", METHODS)
def test_attribution_is_a_present_modality_or_unknown(name: str) -> None:
    method = small(name).eval()
    features, masks, _ = batch()
    attribution = method.score(features, masks).attribution
    modality_mask = torch.stack([mask.any(1) for mask in masks.values()], dim=1)
    assert attribution.shape == (B, len(LABELS))
    if (attribution >= 0).any():
        assert modality_mask.gather(1, attribution).all()


@pytest.mark.parametrize("present", SUBSETS, ids="+".join)
@pytest.mark.parametrize("name", METHODS)
def test_any_subset_of_modalities_gives_finite_scores_and_gradients(
    name: str, present: tuple[str, ...]
) -> None:
    method = small(name).train()
    features, masks, labels = batch(absent=False)
    masks = {m: mask & (m in present) for m, mask in masks.items()}
    outputs = method(features, masks)
    losses = method.losses(outputs, labels)
    assert outputs.scores.isfinite().all()
    assert all(value.isfinite() for value in losses.values())
    if method.is_trainable:
        losses["total"].backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in method.parameters())
    method.update_after_step(outputs, labels)
    assert method.eval().score(features, masks).scores.isfinite().all()


@pytest.mark.parametrize("widths", [{"text": 5}, {"audio": 7, "text": 5}], ids=["one", "two"])
@pytest.mark.parametrize("name", METHODS)
def test_other_modalities_are_supported(name: str, widths: dict[str, int]) -> None:
    method = small(name, widths).train()
    features, masks, labels = batch()
    features, masks = ({m: x[m] for m in widths} for x in (features, masks))
    rows = torch.stack([mask.any(1) for mask in masks.values()]).any(0)
    features, masks = ({m: x[rows] for m, x in given.items()} for given in (features, masks))
    losses = method.losses(method(features, masks), labels[rows])
    assert losses["total"].isfinite()


@pytest.mark.parametrize("name", TRAINED)
def test_gradient_reaches_every_parameter(name: str) -> None:
    """In the second step, when memory banks are filled."""
    method = small(name).train()
    assert method.is_trainable
    features, masks, labels = batch()
    for _ in range(2):
        method.zero_grad(set_to_none=True)
        outputs = method(features, masks)
        method.losses(outputs, labels)["total"].backward()
        method.update_after_step(outputs, labels)
    without = [
        n for n, p in method.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not without


@pytest.mark.parametrize("name", TRAINED)
def test_forward_changes_no_state(name: str) -> None:
    method = small(name, dropout=0.1).train()
    features, masks, labels = batch()
    before = {n: x.clone() for n, x in method.state_dict().items()}
    method.losses(method(features, masks), labels)
    for n, x in method.state_dict().items():
        assert torch.equal(x, before[n]), n


def train_shortly(name: str, store: Store, out: Path) -> carat.Predictor:
    overrides = {"method": {"name": name}, "training": {"epochs": 1, "accelerator": "cpu"}}
    return carat.load(train(load_experiment(preset="small", overrides=overrides), store, out).folder)


@pytest.mark.parametrize("name", METHODS)
def test_run_can_be_loaded_and_evaluated(name: str, store: Store, tmp_path: Path) -> None:
    predictor = train_shortly(name, store, tmp_path / "run")
    report = predictor.evaluate(store)
    assert np.isfinite(report.metrics.micro_f1)
    (id, prediction), *_ = predictor.predict_store(store, "test")
    assert isinstance(id, str)
    assert set(prediction.scores) == set(store.label_names)
    assert not prediction.attribution or set(prediction.attribution) == set(store.label_names)


@pytest.mark.parametrize("name", ["carat+", "amp", "lddu"])
def test_training_is_repeatable(name: str, store: Store, tmp_path: Path) -> None:
    """Methods that draw random numbers in their losses."""
    first, second = (train_shortly(name, store, tmp_path / str(i)).model.state_dict() for i in range(2))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[k], second[k]) for k in first)


@pytest.mark.parametrize("name", METHODS)
def test_device_path_gives_the_same_numbers(name: str, request: pytest.FixtureRequest) -> None:
    features, masks, labels = batch()

    def step() -> tuple[Tensor, Tensor]:
        method = small(name).train()
        outputs = method(features, masks)
        return outputs.scores, method.losses(outputs, labels, torch.Generator().manual_seed(1))["total"]

    here = step()
    request.getfixturevalue("values_hidden")
    torch.testing.assert_close(step(), here, atol=1e-5, rtol=1e-5)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown method 'mlut'"):
        load_experiment(overrides={"method": "mlut"})


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("name", METHODS)
def test_export_gives_the_same_numbers(name: str, suffix: str, store: Store, tmp_path: Path) -> None:
    folder = train_shortly(name, store, tmp_path / "run").folder
    exported = export(folder, tmp_path / f"model{suffix}", store=store.folder)
    assert exported.largest_difference <= 1e-5


@pytest.fixture(scope="session")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The built-in benchmark with its default size."""
    return make_synthetic(tmp_path_factory.mktemp("benchmark") / "store")


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name != "prior"])
def test_method_learns_the_benchmark(name: str, benchmark: Store, tmp_path: Path) -> None:
    """Validation far above the prior's 0.42 with the preset `small`."""
    made = train(load_experiment(preset="small", overrides={"method": name}), benchmark, tmp_path / "run")
    report = carat.load(made.folder).evaluate(benchmark)
    assert report.intervals["micro_f1"][0] > 0.55
