"""Pretrained encoders that start from the weights of another run."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import carat
from carat.config.base import merge
from carat.config.encoders import EncoderChoice, LoraConfig
from carat.config.experiment import Experiment, load_experiment
from carat.data.recipes.build import build_store
from carat.data.store import Store
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.transfer import merge_adapters
from carat.runs.folder import METRICS, WEIGHTS
from carat.training.distributed import SINGLE_PROCESS
from carat.training.lightning_module import TrainingModule
from carat.training.setup import prepare_task
from carat.training.train import TrainedRun, train
from carat.utils.errors import CaratError, ConfigError, DataError
from tests.models.encoders.conftest import TRAINING
from tests.models.encoders.folders import KEYWORDS, make_text_encoder, write_recipe
from tests.training.test_resume import KilledError, die

CARAT = {
    "name": "carat",
    "hidden": 8,
    "latent": 6,
    "encoder": {"layers": {}, "other_layers": 1, "heads": 2, "feedforward": 8, "max_length": 30},
    "contrast": {"queue": 31},
}


@pytest.fixture(scope="module")
def few_labels(text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Another corpus with tokens of the same tokenizer, and two labels, of which one is known."""
    folder = tmp_path_factory.mktemp("few")
    recipe = folder / "recipe.yaml"
    write_recipe(recipe, text_encoder)
    table = folder / "table.csv"
    with table.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    with table.open("w", newline="") as opened:
        writer = csv.DictWriter(opened, ["id", "split", "utterance", "calm", "sad"])
        writer.writeheader()
        for row in rows:
            kept = {key: row[key] for key in ("id", "split", "utterance", "sad")}
            writer.writerow(kept | {"calm": row["anger"]})
    recipe.write_text(recipe.read_text().replace(", ".join(KEYWORDS), "calm, sad"))
    return build_store(recipe, folder / "store")


def experiment(run: Any, method: Any = "linear", **changes: Any) -> Experiment:
    values = merge(TRAINING, {"method": method, "training": {"init_from": run, "epochs": 1}})
    return load_experiment(overrides=merge(values, changes))


def encoder_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: x for name, x in state.items() if name.startswith("encoders.")}


def assert_same_encoder(experiment: Experiment, store: Store, run: TrainedRun) -> dict[str, Tensor]:
    task = prepare_task(experiment, store, SINGLE_PROCESS)
    state, trained = task.model.state_dict(), encoder_of(load_file(run.folder / WEIGHTS))
    assert task.origin is not None
    assert task.origin.encoders == ["text"]
    assert encoder_of(state).keys() == trained.keys()
    assert all(torch.equal(state[name], x) for name, x in trained.items())
    return state


@pytest.mark.parametrize("method", ["linear", CARAT, "br"])
@pytest.mark.parametrize("named", [True, False])
def test_encoder_of_the_run_is_taken_by_any_method(
    method: Any, named: bool, few_labels: Store, text_encoder: Path, text_run: TrainedRun
) -> None:
    choice = {"encoders": {"text": {"folder": str(text_encoder)}}} if named else {}
    state = assert_same_encoder(experiment(text_run, method, **choice), few_labels, text_run)
    if method == "linear":
        weights = load_file(text_run.folder / WEIGHTS)["model.classifiers.text.weight"]
        fresh = prepare_task(
            experiment(text_run, method, training={"init_parts": "encoder"}, **choice),
            few_labels,
            SINGLE_PROCESS,
        )
        rows = state["model.classifiers.text.weight"]
        assert torch.equal(rows[1], weights[text_run.card.labels.index("sad")])
        assert torch.equal(rows[0], fresh.model.state_dict()["model.classifiers.text.weight"][0])


@pytest.mark.slow
def test_run_with_the_encoder_of_another_run_needs_neither(
    few_labels: Store, text_run: TrainedRun, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(text_run.folder, tmp_path / "source"))
    settings = experiment(source, encoders={"text": {"learning_rate": 1e-3}}, training={"epochs": 3})
    whole = train(settings, few_labels, tmp_path / "whole")
    assert whole.experiment.encoders["text"].folder == ""
    for name in ("config.json", "tokenizer.json"):
        file = Path("encoders", "text", name)
        assert (whole.folder / file).read_bytes() == (source / file).read_bytes()
    with pytest.MonkeyPatch.context() as patched:
        die(patched, TrainingModule, "training_step", 10, KilledError())
        with pytest.raises(KilledError):
            train(settings, few_labels, tmp_path / "begun")
    shutil.rmtree(source)
    train(settings, few_labels, tmp_path / "begun")
    for name in (WEIGHTS, METRICS):
        assert (tmp_path / "begun" / name).read_bytes() == (whole.folder / name).read_bytes()
    (prediction,) = carat.load(whole, device="cpu").predict_text(["so many tears"])
    assert list(prediction.scores) == ["calm", "sad"]
    third = train(experiment(whole), few_labels, tmp_path / "third")  # runs can be chained
    assert third.card.origin is not None
    assert third.card.origin.encoders == ["text"]


def test_other_architecture_is_not_mixed(
    few_labels: Store, text_encoder: Path, text_run: TrainedRun, tmp_path: Path
) -> None:
    from transformers import BertConfig, BertModel

    folder = Path(shutil.copytree(text_encoder, tmp_path / "deeper"))
    config = BertConfig.from_pretrained(folder)
    config.num_hidden_layers += 1
    BertModel(config).save_pretrained(folder)
    settings = experiment(text_run, encoders={"text": {"folder": str(folder)}})
    task = prepare_task(settings, few_labels, SINGLE_PROCESS)
    published = load_file(folder / "model.safetensors")
    state = encoder_of(task.model.state_dict())
    assert all(
        torch.equal(x, published[name.removeprefix("encoders.text.model.")]) for name, x in state.items()
    )
    assert task.origin is not None
    assert task.origin.encoders == []
    assert task.origin.initial == ["encoders"]
    with pytest.raises(ConfigError, match="has no pretrained encoder that fits"):
        prepare_task(
            load_experiment(overrides=merge(settings.model_dump(), {"training": {"init_parts": "encoder"}})),
            few_labels,
            SINGLE_PROCESS,
        )


def test_other_tokenizer_is_refused_or_left_out(text_run: TrainedRun, tmp_path: Path) -> None:
    encoder = make_text_encoder(tmp_path / "encoder")
    tokenizer = encoder / "tokenizer.json"
    text = tokenizer.read_text()
    swapped = text.replace('"glad"', '"swap"').replace('"tears"', '"glad"').replace('"swap"', '"tears"')
    assert swapped != text
    tokenizer.write_text(swapped)
    write_recipe(tmp_path / "recipe.yaml", encoder)
    store = build_store(tmp_path / "recipe.yaml", tmp_path / "store")
    with pytest.raises(
        DataError, match=r"tokenizer\.json: differs from the tokenizer of the stored tokens of text"
    ):
        prepare_task(experiment(text_run), store, SINGLE_PROCESS)
    settings = experiment(text_run, encoders={"text": {"folder": str(encoder)}})
    task = prepare_task(settings, store, SINGLE_PROCESS)
    assert task.origin is not None
    assert task.origin.encoders == []


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({}, "modality 'text' has tokens and needs an encoder, but the run .* has none for it: set"),
        (
            {"text": {"kind": "transformer"}},
            "modality 'text' has tokens and needs an encoder: set encoders.text",
        ),
    ],
)
def test_run_without_encoder(
    encoders: dict[str, Any], message: str, few_labels: Store, trained: TrainedRun
) -> None:
    with pytest.raises(CaratError, match=message):
        prepare_task(experiment(trained, encoders=encoders), few_labels, SINGLE_PROCESS)


LORA = {"rank": 2, "alpha": 6}


@pytest.fixture(scope="module")
def adapted(text_store: Store, text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A run whose encoder has adapters."""
    pytest.importorskip("peft")
    choice = {"folder": str(text_encoder), "lora": LORA, "learning_rate": 1e-2}
    settings = merge(TRAINING, {"method": "linear", "encoders": {"text": choice}, "training": {"epochs": 1}})
    return train(settings, text_store, tmp_path_factory.mktemp("adapted") / "run")


def states(model: Any, store: Store) -> Tensor:
    """Hidden states of ten texts."""
    ids = [torch.from_numpy(store.features("text", row).astype("float32")) for row in range(10)]
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(x), dtype=torch.bool) for x in ids], True)
    with torch.inference_mode():
        return model.eval().encoders["text"](torch.nn.utils.rnn.pad_sequence(ids, True), mask)[0]


@pytest.mark.parametrize("lora", [None, LORA, {"rank": 3, "alpha": 6}])
def test_adapters_are_taken_or_merged(
    lora: dict[str, int] | None, few_labels: Store, text_encoder: Path, adapted: TrainedRun
) -> None:
    task = prepare_task(experiment(adapted, encoders={"text": {"lora": lora}}), few_labels, SINGLE_PROCESS)
    assert task.origin is not None
    assert task.origin.encoders == ["text"]
    trained = carat.load(adapted, device="cpu").model
    expected = states(trained, few_labels)
    torch.testing.assert_close(states(task.model, few_labels), expected, atol=1e-5, rtol=1e-4)
    published = PretrainedEncoder(text_encoder, EncoderChoice(folder="x"), text=True)
    untrained = torch.nn.ModuleDict({"text": published})
    assert (states(torch.nn.ModuleDict({"encoders": untrained}), few_labels) - expected).abs().max() > 0.01
    if lora == LORA:
        state = task.model.state_dict()
        assert all(torch.equal(state[k], x) for k, x in encoder_of(trained.state_dict()).items())


def test_adapters_are_added_to_their_weights() -> None:
    state = {
        "a.base_layer.weight": torch.ones(2, 3),
        "a.base_layer.bias": torch.zeros(2),
        "a.lora_A.default.weight": torch.tensor([[1.0, 0.0, 2.0]]),
        "a.lora_B.default.weight": torch.tensor([[1.0], [-1.0]]),
        "b.weight": torch.ones(1),
    }
    merged = merge_adapters(state, LoraConfig(rank=1, alpha=2))
    assert merged["a.weight"].tolist() == [[3, 1, 5], [-1, 1, -3]]
    assert list(merged) == ["a.weight", "a.bias", "b.weight"]
    assert state["a.base_layer.weight"].tolist() == [[1, 1, 1]] * 2
