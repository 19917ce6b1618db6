"""Invalid model folders are rejected with a one-line message that names the file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from carat.config.encoders import EncoderChoice
from carat.data.recipes.sources.hidden_states import HuggingFaceSource
from carat.data.recipes.sources.tokens import TokenSource
from carat.models.encoders.loading import load_model
from carat.utils.errors import DataError
from carat.utils.hugging_face import check_folder, longest_text, read_config

Change = Callable[[Path], object]


def change_config(**values: object) -> Change:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps(config))

    return change


def enlarge_vocabulary(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] |= {f"word{i}": 100 + i for i in range(9)}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


def reduce_vocabulary(folder: Path) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"] = {w: i for w, i in tokenizer["model"]["vocab"].items() if i < 12}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))


INVALID: dict[str, tuple[Change, str]] = {
    "pickled": (
        lambda f: (f / "pytorch_model.bin").write_bytes(b"x"),
        "pytorch_model.bin: model folder contains pickled weights",
    ),
    "pickled in a subfolder": (
        lambda f: ((f / "2_Dense").mkdir(), (f / "2_Dense" / "a.PT").write_bytes(b"x")),
        "2_Dense/a.PT: model folder contains pickled weights",
    ),
    "code": (lambda f: (f / "modeling_own.py").write_text(""), "modeling_own.py: model folder contains code"),
    "code by name": (
        change_config(auto_map={"AutoModel": "x.Y"}),
        "requires custom code ('auto_map'), which carat never executes",
    ),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), "config.json: cannot be read"),
    "a list": (lambda f: (f / "config.json").write_text("[]"), "expected a mapping, found list"),
    "no type": (change_config(model_type=None), "has no model_type"),
    "broken tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json: cannot be read"),
    "larger tokenizer": (
        enlarge_vocabulary,
        "tokenizer.json: belongs to another model: it has 32 tokens with IDs up to 108",
    ),
    "smaller tokenizer": (reduce_vocabulary, "tokenizer.json: belongs to another model: it has 12 tokens"),
    "swapped tokenizer": (
        lambda f: (f / "vocab.txt").write_text("[PAD]\nglad\n"),
        "belongs to another model: the ID of 'glad' differs from vocab.txt",
    ),
}


@pytest.mark.parametrize("name", INVALID)
def test_invalid_folders_are_rejected(name: str, text_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    check_folder(folder, tokenizer=True)
    change, message = INVALID[name]
    change(folder)
    with pytest.raises(DataError) as caught:
        check_folder(folder, tokenizer=True)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
    if name != "no weights":  # a source of tokens needs no weights
        with pytest.raises(DataError):
            TokenSource(folder)
    if "tokenizer" not in name:
        with pytest.raises(DataError):
            HuggingFaceSource(folder)


@pytest.mark.parametrize("checkpointing", [False, True])  # loaded by `Bert` and by transformers
def test_missing_and_unreadable_weights_are_rejected(
    checkpointing: bool, text_encoder: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    choice = EncoderChoice(folder=str(folder), gradient_checkpointing=checkpointing)
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError, match=r"weight 'encoder.layer.1.output.dense.weight' is missing"):
        load_model(folder, choice, text=True, weights=True)
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(DataError, match="cannot be loaded"):
        load_model(folder, choice, text=True, weights=True)


def test_longest_text_leaves_out_the_position_offset() -> None:
    assert longest_text({"model_type": "bert", "max_position_embeddings": 37}) == 37
    roberta = {"model_type": "roberta", "max_position_embeddings": 514, "pad_token_id": 1}
    assert longest_text(roberta) == 512


def test_token_source_adds_special_tokens_and_truncates(text_encoder: Path) -> None:
    source = TokenSource(text_encoder, 6)
    ids, empty, truncated = source.read(["So GLAD", " ", "a a a a a a a a"])
    assert empty is None
    assert ids is not None
    assert ids.dtype == "int32"
    assert ids[:, 0].tolist() == [2, 11, 17, 3]
    assert truncated is not None
    assert truncated.shape == (6, 1)
    assert source.report() == ["1 texts have 6 tokens, where they are cut"]
    assert source.tokens.vocabulary == read_config(text_encoder)["vocab_size"]
