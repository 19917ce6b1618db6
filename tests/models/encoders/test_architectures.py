"""Encoders of other architectures than BERT: MPNet by carat's own implementation, others by transformers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from carat.models.encoders.mpnet import Mpnet
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.utils.hugging_face import read_config
from tests.models.encoders.folders import LAYERS, WORDS
from tests.models.encoders.test_encoders import pretrained, tokens, with_gradient

SIZES = {
    "vocab_size": len(WORDS),
    "hidden_size": 12,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "intermediate_size": 14,
    "pad_token_id": 1,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


def make_encoder(folder: Path, tokenizer: Path, kind: str, **sizes: Any) -> Path:
    """A small random model of an architecture."""
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(kind, **SIZES | sizes)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for name, x in model.named_parameters():  # as large as in trained models
            x.mul_(30 if "relative" in name else 5 if x.ndim == 2 else 1)
    model.save_pretrained(folder)
    shutil.copy(tokenizer / "tokenizer.json", folder)
    return folder


@pytest.fixture
def mpnet(text_encoder: Path, tmp_path: Path) -> Path:
    return make_encoder(tmp_path / "mpnet", text_encoder, "mpnet", max_position_embeddings=160)


def reference(folder: Path, ids: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, Any]:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).train()
    padded = ids[..., 0].masked_fill(~mask, model.config.pad_token_id)
    return model(input_ids=padded, attention_mask=mask.long()).last_hidden_state, model


def long_tokens() -> tuple[torch.Tensor, torch.Tensor]:
    """Longer than the distance from which positions share a bias, and than what attends in one piece."""
    lengths = torch.tensor([150, 20, 133, 1])
    ids = torch.randint(4, len(WORDS), (4, 150, 1), generator=torch.Generator().manual_seed(1))
    return ids, torch.arange(150) < lengths[:, None]


@pytest.mark.parametrize("batch", [tokens, long_tokens])
def test_mpnet_matches_transformers_in_states_and_gradients(batch: Any, mpnet: Path) -> None:
    encoder = pretrained(mpnet)
    assert isinstance(encoder.model, Mpnet)
    assert encoder.input_length(999) == 158
    ids, mask = batch()
    states, _ = encoder(ids, mask)
    present = mask & mask.any(1, keepdim=True)
    expected, model = reference(mpnet, ids, mask)
    assert expected[present].std() > 0.1
    torch.testing.assert_close(states[present], expected[present], atol=1e-5, rtol=1e-5)
    weights = torch.randn(expected.shape, generator=torch.Generator().manual_seed(2))
    for output in (states, expected):
        (output * weights)[present].sum().backward()
    for name, parameter in encoder.model.named_parameters():
        other = model.get_parameter(name).grad
        assert other is not None
        assert parameter.grad is not None
        scale = other.abs().max().clamp(min=1e-3)
        assert (parameter.grad - other).abs().max() < 1e-3 * scale, name


def test_lower_layers_of_mpnet_are_frozen_with_the_biases_of_positions(mpnet: Path) -> None:
    encoder = pretrained(mpnet, train_layers=1, layer_decay=0.5, learning_rate=8.0)
    assert {x.split(".")[2] for x in with_gradient(encoder)} == {str(LAYERS - 1)}
    rates = {name: dict_of(pretrained(mpnet, layer_decay=0.5, learning_rate=8.0))[name] for name in NAMES}
    assert rates == {
        "encoder.layer.2.output.dense.weight": 8.0,
        "encoder.layer.0.output.dense.weight": 2.0,
        "encoder.relative_attention_bias.weight": 1.0,
        "embeddings.word_embeddings.weight": 1.0,
    }


NAMES = (
    "encoder.layer.2.output.dense.weight",
    "encoder.layer.0.output.dense.weight",
    "encoder.relative_attention_bias.weight",
    "embeddings.word_embeddings.weight",
)


def dict_of(encoder: PretrainedEncoder) -> dict[str, float]:
    names = {id(x): name for name, x in encoder.model.named_parameters()}
    return {names[id(parameter)]: rate for parameter, rate in encoder.learning_rates()}


@pytest.mark.parametrize("choice", [{"gradient_checkpointing": True}, {"lora": {"rank": 2}}])
def test_mpnet_with_checkpointing_and_adapters(choice: dict[str, Any], mpnet: Path) -> None:
    if "lora" in choice:
        pytest.importorskip("peft")
    encoder, plain = pretrained(mpnet, **choice), pretrained(mpnet)
    ids, mask = tokens()
    torch.testing.assert_close(encoder(ids, mask)[0], plain(ids, mask)[0], atol=1e-5, rtol=1e-5)
    names = with_gradient(encoder)
    assert names
    assert all("lora" in x for x in names) == ("lora" in choice)


def test_mpnet_in_bf16(mpnet: Path) -> None:
    encoder = PretrainedEncoder(
        mpnet, encoder_choice := pretrained(mpnet).choice.model_copy(update={"precision": "bf16"}), text=True
    )
    assert encoder_choice.precision == "bf16"
    ids, mask = tokens()
    exact, rough = pretrained(mpnet)(ids, mask)[0], encoder(ids, mask)[0]
    assert rough.dtype == torch.float32
    assert 0 < (exact - rough).abs().max() < 0.2


@pytest.mark.parametrize(
    ("kind", "sizes"),
    [
        ("xlm-roberta", {"max_position_embeddings": 39}),
        ("deberta-v2", {"max_position_embeddings": 37, "relative_attention": True, "pos_att_type": ["p2c"]}),
    ],
)
def test_other_architectures_by_transformers(
    kind: str, sizes: dict[str, Any], text_encoder: Path, tmp_path: Path
) -> None:
    folder = make_encoder(tmp_path / "encoder", text_encoder, kind, **sizes)
    assert (
        json.loads((folder / "config.json").read_text())["model_type"]
        == kind
        == read_config(folder)["model_type"]
    )
    encoder = pretrained(folder)
    ids, mask = tokens()
    present = mask & mask.any(1, keepdim=True)
    expected, _ = reference(folder, ids, mask)
    torch.testing.assert_close(encoder(ids, mask)[0][present], expected[present], atol=1e-5, rtol=1e-4)
    assert with_gradient(encoder)
