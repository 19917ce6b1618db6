"""Pretrained encoders: hidden states, trainable parameters, training, and the files that a run keeps."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import carat
from carat.config.encoders import EncoderChoice
from carat.config.experiment import load_experiment
from carat.data.store import Store
from carat.models.build import build
from carat.models.encoders.bert import Bert
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.encoders.wrapper import EncodedModel
from carat.training.lightning_module import TrainingModule
from carat.training.optimizer import make_optimizer
from carat.training.train import TrainedRun, train
from carat.utils.errors import ConfigError, DataError, RunError
from carat.utils.hugging_face import read_config
from tests.models.encoders.conftest import TRAINING
from tests.models.encoders.folders import LAYERS, WIDTH, WORDS
from tests.training.test_resume import KilledError, contents, die

LENGTHS = (7, 0, 3, 11, 1)


def pretrained(folder: Path, **choice: Any) -> PretrainedEncoder:
    return PretrainedEncoder(
        folder, EncoderChoice(folder=str(folder), precision="float32", **choice), text=True
    )


def tokens() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, len(WORDS), (len(LENGTHS), max(LENGTHS), 1), generator=generator)
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    return ids, mask


def test_hidden_states_match_transformers(text_encoder: Path) -> None:
    from transformers import BertModel

    model = BertModel.from_pretrained(text_encoder).eval()
    ids, mask = tokens()
    states, valid = pretrained(text_encoder).eval()(ids, mask)
    assert states.shape == (len(LENGTHS), max(LENGTHS), WIDTH)
    torch.testing.assert_close(valid, mask)
    for i, length in enumerate(LENGTHS):
        assert not states[i, length:].any()
        if length:
            alone = model(input_ids=ids[i : i + 1, :length, 0]).last_hidden_state[0]
            torch.testing.assert_close(states[i, :length], alone, atol=2e-6, rtol=1e-5)


@pytest.mark.usefixtures("values_hidden")
def test_hidden_states_with_static_shapes(text_encoder: Path) -> None:
    ids, mask = tokens()
    states, _ = pretrained(text_encoder).eval()(ids, mask)
    for i, length in enumerate(LENGTHS):
        assert not states[i, length:].any()
        assert states[i, :length].abs().sum() >= length


def test_batch_without_valid_steps(text_encoder: Path) -> None:
    ids, mask = tokens()
    states, valid = pretrained(text_encoder)(ids, torch.zeros_like(mask))
    assert states.shape == (len(LENGTHS), 1, WIDTH)
    assert not states.any()
    assert not valid.any()


def with_gradient(encoder: PretrainedEncoder) -> set[str]:
    """Names of the parameters that get a gradient other than zero."""
    ids, mask = tokens()
    states, _ = encoder(ids, mask)
    if states.requires_grad:
        states.square().sum().backward()
    return {name for name, p in encoder.model.named_parameters() if p.grad is not None and p.grad.any()}


def test_all_parameters_are_trained_by_default(text_encoder: Path) -> None:
    encoder = pretrained(text_encoder)
    without = {name for name, _ in encoder.model.named_parameters()} - with_gradient(encoder)
    assert all(name.endswith("key.bias") for name in without)  # the softmax cancels it


@pytest.mark.parametrize("train_layers", [0, 1, 2])
def test_only_the_last_layers_are_trained(train_layers: int, text_encoder: Path) -> None:
    encoder = pretrained(text_encoder, train_layers=train_layers)
    trained = {name.split(".")[2] for name in with_gradient(encoder)}
    assert trained == {str(i) for i in range(LAYERS - train_layers, LAYERS)}
    assert encoder.training == bool(train_layers)


def test_too_many_layers_to_train_are_rejected(text_encoder: Path) -> None:
    with pytest.raises(DataError, match=r"text: train_layers is 9, but the model has 3 layers"):
        pretrained(text_encoder, train_layers=9)


def test_learning_rate_decays_from_layer_to_layer(text_encoder: Path) -> None:
    encoder = pretrained(text_encoder, layer_decay=0.5, learning_rate=8.0)
    names = {id(p): name for name, p in encoder.model.named_parameters()}
    rates = {names[id(p)]: rate for p, rate in encoder.learning_rates()}
    assert rates["encoder.layer.2.output.dense.weight"] == 8.0
    assert rates["encoder.layer.0.output.dense.weight"] == 2.0
    assert rates["embeddings.word_embeddings.weight"] == 1.0
    assert {rate for _, rate in pretrained(text_encoder, learning_rate=3.0).learning_rates()} == {3.0}


def test_optimizer_uses_the_learning_rates_of_encoders(text_encoder: Path, text_store: Store) -> None:
    experiment = load_experiment(
        overrides=TRAINING
        | {"method": "linear", "encoders": {"text": {"folder": str(text_encoder), "learning_rate": 3e-3}}}
    )
    model = build_for(experiment, text_store)
    optimizer, _ = make_optimizer(model, experiment.training, 10)
    rates = {id(p): g["initial_lr"] for g in optimizer.param_groups for p in g["params"]}
    assert isinstance(model, EncodedModel)
    assert {rates[id(p)] for p in model.encoders.parameters()} == {3e-3}
    assert {rates[id(p)] for p in model.model.parameters()} == {1e-2}
    assert len(rates) == len(list(model.parameters()))


def test_inner_model_decides_on_its_own_weight_decay(text_encoder: Path, text_store: Store) -> None:
    for decays in (False, True):
        experiment = load_experiment(
            overrides={
                "method": METHODS["carat"] | {"decay_input_norm": decays},
                "encoders": {"text": {"folder": str(text_encoder)}},
            }
        )
        model = build_for(experiment, text_store)
        no_decay = {id(p) for p in model.no_decay_parameters()}
        assert (id(model.model.network.input_norm["text"].weight) in no_decay) != decays
        assert id(model.encoders["text"].model.embeddings["LayerNorm"].weight) in no_decay


def build_for(experiment: Any, store: Store) -> Any:
    return build(experiment.method, experiment.encoders, store.label_names, store.manifest.modalities)


def test_gradient_checkpointing_keeps_the_gradients(text_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    config = read_config(folder) | {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    plain, checkpointed = (pretrained(folder, gradient_checkpointing=x) for x in (False, True))
    assert all(isinstance(x.model, Bert) for x in (plain, checkpointed))
    assert [x.model.checkpoints for x in (plain, checkpointed)] == [False, True]
    for encoder in (plain, checkpointed):
        with_gradient(encoder)
    for name, p in plain.model.named_parameters():
        expected = checkpointed.model.get_parameter(name).grad
        torch.testing.assert_close(p.grad, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", ["bert", "roberta", "with head", "old names"])
def test_bert_matches_transformers(kind: str, text_encoder: Path, tmp_path: Path) -> None:
    import transformers

    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    config = read_config(folder)
    if kind == "roberta":
        config |= {"model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 39, "eps": 1e-5}
    (folder / "config.json").write_text(json.dumps(config))
    head = kind in ("with head", "old names")
    auto = transformers.AutoModelForMaskedLM if head else transformers.AutoModel
    auto.from_config(transformers.AutoConfig.from_pretrained(folder)).save_pretrained(folder)
    if kind == "old names":
        old = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): x
            for name, x in load_file(folder / "model.safetensors").items()
        }
        save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    encoder = pretrained(folder).eval()
    assert isinstance(encoder.model, Bert)
    ids, mask = tokens()
    states, _ = encoder(ids, mask)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    padded = ids[..., 0].masked_fill(~mask, model.config.pad_token_id)
    expected = model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(states[mask], expected[mask], atol=2e-6, rtol=1e-5)
    assert encoder.input_length(99) == 37


def test_configuration_with_other_key_names(text_encoder: Path, tmp_path: Path) -> None:
    from transformers import DistilBertConfig, DistilBertModel

    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    config = DistilBertConfig(
        vocab_size=len(WORDS), max_position_embeddings=37, n_layers=2, n_heads=2, dim=12, hidden_dim=14
    )
    DistilBertModel(config).save_pretrained(folder)
    encoder = pretrained(folder, train_layers=1, layer_decay=0.5, learning_rate=8.0)
    assert encoder.width == 12
    assert encoder.input_length(99) == 37
    assert {rate for _, rate in encoder.learning_rates()} == {8.0}
    assert {name.split(".")[2] for name in with_gradient(encoder)} == {"1"}


@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_other_architectures_use_transformers(
    change: dict[str, Any], text_encoder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    (folder / "config.json").write_text(json.dumps(read_config(folder) | change))
    encoder = pretrained(folder).eval()
    assert not isinstance(encoder.model, Bert)
    ids, mask = tokens()
    states, _ = encoder(ids, mask)
    alone, _ = encoder(ids[:1, : LENGTHS[0]], mask[:1, : LENGTHS[0]])
    torch.testing.assert_close(states[0, : LENGTHS[0]], alone[0])
    assert not states[2, LENGTHS[2] :].any()
    assert with_gradient(pretrained(folder))


def test_lora_trains_adapters_only(text_encoder: Path) -> None:
    pytest.importorskip("peft")
    encoder = pretrained(text_encoder, lora={"rank": 2, "alpha": 4})
    assert {name for name, p in encoder.model.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in with_gradient(encoder))
    plain = pretrained(text_encoder).eval()
    ids, mask = tokens()
    torch.testing.assert_close(encoder.eval()(ids, mask)[0], plain(ids, mask)[0])  # initially zero


def test_frozen_encoder_is_in_evaluation_mode_without_gradient(text_encoder: Path) -> None:
    encoder = pretrained(text_encoder)
    encoder.set_frozen(True)
    assert not encoder.training
    assert not encoder(*tokens())[0].requires_grad
    encoder.train()
    assert not encoder.training
    encoder.set_frozen(False)
    assert encoder.training
    assert encoder(*tokens())[0].requires_grad


def test_encoder_is_unchanged_after_frozen_epochs(
    text_encoder: Path, text_store: Store, tmp_path: Path
) -> None:
    changed = {}
    for epochs in (0, 1):
        experiment = TRAINING | {
            "method": "linear",
            "encoders": {"text": {"folder": str(text_encoder), "frozen_epochs": epochs}},
            "training": TRAINING["training"] | {"epochs": 1},
        }
        run = train(experiment, text_store, tmp_path / str(epochs))
        after = carat.load(run.folder).model.state_dict()
        before = pretrained(text_encoder).state_dict()
        changed[epochs] = [not torch.equal(after[f"encoders.text.{name}"], x) for name, x in before.items()]
    assert any(changed[0])
    assert not any(changed[1])


METHODS = {
    "carat": {
        "hidden": 16,
        "latent": 6,
        "encoder": {"layers": {"text": 0}, "heads": 2},
        "contrast": {"queue": 53},
    },
    "carat+": {
        "hidden": 16,
        "latent": 6,
        "encoder": {"layers": {"text": 1}, "heads": 2},
        "contrast": {"queue": 53},
    },
    "late-fusion": {"hidden": 16, "encoder": {"layers": 0, "heads": 2}},
    "br": {},
    "prior": {},
}


@pytest.mark.parametrize("name", METHODS)
def test_methods_train_with_an_encoder(
    name: str, text_encoder: Path, text_store: Store, tmp_path: Path
) -> None:
    moved = shutil.copytree(text_encoder, tmp_path / "encoder")
    experiment = TRAINING | {
        "method": METHODS[name] | {"name": name},
        "encoders": {"text": {"folder": str(moved), "learning_rate": 3e-3}},
        "training": TRAINING["training"] | {"epochs": 2},
    }
    run = train(experiment, text_store, tmp_path / "run")
    shutil.rmtree(moved)  # the run has its own copy
    report = carat.load(run.folder).evaluate(text_store, "valid")
    assert report.metrics.micro_f1 == pytest.approx(run.card.validation["micro_f1"], abs=1e-6)


def test_fine_tuned_run_predicts_the_labels(text_run: TrainedRun, text_store: Store) -> None:
    assert carat.load(text_run.folder).evaluate(text_store, "test").metrics.micro_f1 > 0.9


def test_resumed_training_is_identical(
    text_encoder: Path,
    text_store: Store,
    logged: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    experiment = TRAINING | {
        "method": METHODS["carat"] | {"name": "carat"},
        "encoders": {"text": {"folder": str(text_encoder), "frozen_epochs": 1}},
        "training": TRAINING["training"] | {"epochs": 3, "checkpoint_every": 3, "ema_decay": 0.9},
    }
    train(experiment, text_store, tmp_path / "whole")
    with monkeypatch.context() as patch:
        die(patch, TrainingModule, "training_step", 14, KilledError())
        with pytest.raises(KilledError):
            train(experiment, text_store, tmp_path / "killed")
    logged.clear()
    train(experiment, text_store, tmp_path / "killed")
    assert "resuming after 12 batches" in logged[0]
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_altered_encoder_files_of_a_run_are_rejected(text_run: TrainedRun, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        run = shutil.copytree(text_run.folder, tmp_path / name)
        file = run / "encoders" / "text" / name
        file.write_bytes(file.read_bytes()[:-2] + b" }")
        with pytest.raises(RunError, match=f"{name}: modified after training"):
            carat.load(run)
        file.unlink()
        with pytest.raises(RunError, match=f"{name}: no such file"):
            carat.load(run)


@pytest.mark.parametrize(
    ("encoders", "message"),
    [
        ({}, "modality 'text' has tokens and needs an encoder: set encoders.text.folder"),
        (
            {"text": {"kind": "transformer"}},
            "modality 'text' has tokens and needs an encoder: set encoders.text.folder",
        ),
        ({"txt": {"folder": "x"}}, "encoders: the data has no modality 'txt'; did you mean 'text'"),
        ({"text": {"folder": "/no/such"}}, "/no/such: no such folder; carat downloads nothing"),
    ],
)
def test_encoders_that_do_not_fit_the_data_are_rejected(
    encoders: dict[str, Any], message: str, text_store: Store, tmp_path: Path
) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        train({"method": "linear", "encoders": encoders}, text_store, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_encoder_for_features_is_rejected(store: Store, text_encoder: Path) -> None:
    experiment = load_experiment(overrides={"encoders": {"text": {"folder": str(text_encoder)}}})
    with pytest.raises(
        ConfigError,
        match=r"encoders.text: the modality has features, but a pretrained encoder needs tokens or audio",
    ):
        build_for(experiment, store)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({}, "kind pretrained requires a folder"),
        ({"kind": "transformer", "folder": "x"}, "kind transformer takes no other keys"),
        ({"folder": "x", "train_layers": 1, "lora": {}}, "lora and train_layers are mutually exclusive"),
    ],
)
def test_contradictory_options_are_rejected(choice: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_experiment(overrides={"encoders": {"text": choice}})
