"""Model folders from outside: every fault is one line, found before memory is allocated."""

from __future__ import annotations

import copy
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carat.config.encoders import EncoderChoice
from carat.data.recipes.sources.hidden_states import HuggingFaceSource
from carat.data.recipes.sources.tokens import TokenSource
from carat.data.tokenizer import ContextTokenizer
from carat.inference.loading import load
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.models.sizes import measure
from carat.training.train import TrainedRun
from carat.utils.errors import CaratError, DataError
from carat.utils.hugging_face import MAX_CHARACTERS, check_folder, cut, cut_middle, encode, read_tokenizer
from tests.models.encoders.folders import make_speech_encoder

Change = Callable[[Path], object]


def change(name: str, *path: str, to: Any) -> Change:
    def apply(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = to
        (folder / name).write_text(json.dumps(content))

    return apply


def config(key: str, to: Any) -> Change:
    return change("config.json", key, to=to)


def write(name: str, content: bytes) -> Change:
    return lambda folder: (folder / name).write_bytes(content)


def backtrack(folder: Path) -> None:
    """A pre-tokenizer whose regular expression needs exponential time, at which tokenizers panics."""
    pattern = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    change("tokenizer.json", "pre_tokenizer", to=pattern)(folder)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"
FAULTS: dict[str, tuple[Change, str]] = {
    "no heads": (
        config("num_attention_heads", 0),
        "num_attention_heads is 0, expected a whole number from 1",
    ),
    "heads that do not divide": (
        config("num_attention_heads", 3),
        "hidden_size 20 is not a multiple of num_att",
    ),
    "a text as size": (config("hidden_size", "20"), "hidden_size is '20', expected a whole number"),
    "a float as size": (
        config("num_hidden_layers", 3.0),
        "num_hidden_layers is 3.0, expected a whole number",
    ),
    "a list as size": (config("intermediate_size", [28]), "intermediate_size is [28], expected"),
    "a truth value as size": (config("vocab_size", True), "vocab_size is True, expected"),
    "a negative size": (config("max_position_embeddings", -1), "max_position_embeddings is -1, expected"),
    "no room for a text": (config("max_position_embeddings", 2), "leaves no room for a text"),
    "endless layers": (config("num_hidden_layers", 10**9), "num_hidden_layers is 1000000000, expected"),
    "a huge width": (config("hidden_size", 10_000_000), "cannot be loaded (config.json describes a model of"),
    "a dropout of everything": (
        config("hidden_dropout_prob", 1),
        "hidden_dropout_prob is 1, expected a number from 0 to below 1",
    ),
    "padding out of range": (config("pad_token_id", 99), "cannot be loaded (AssertionError: "),
    "an odd epsilon": (config("layer_norm_eps", "x"), "cannot encode (TypeError: "),
    "a type that is no text": (config("model_type", ["bert"]), "has no model_type"),
    "an unknown type": (config("model_type", "no-such-type"), "cannot be loaded ("),
    "deep configuration": (
        write("config.json", b"[" * 100_000),
        "config.json: cannot be read: not valid JSON",
    ),
    "no UTF-8": (write("config.json", b"\xff{}"), "config.json: is not UTF-8 text"),
    "a pointer": (write("model.safetensors", POINTER), "model.safetensors: is a Git LFS pointer"),
    "a web page": (write("tokenizer.json", b"<!DOCTYPE html><html>"), "tokenizer.json: is a web page"),
    "a huge header": (write("model.safetensors", b"\xff" * 7 + b"\x7f{}"), "cannot be loaded ("),
    "truncated weights": (
        lambda f: os.truncate(f / "model.safetensors", (f / "model.safetensors").stat().st_size - 100),
        "cannot be loaded (",
    ),
    "no tokens": (change("tokenizer.json", "model", "vocab", to={}), "tokenizer.json: "),
    "ids of special tokens": (
        change("tokenizer.json", "post_processor", "special_tokens", "[SEP]", "ids", to=[10**6]),
        "belongs to another model: it has 23 tokens with IDs up to 1000000",
    ),
    "a list of tokens in Latin-1": (
        write("vocab.txt", "[PAD]\né".encode("latin-1")),
        "vocab.txt: is not UTF-8",
    ),
    "a pipe": (
        lambda f: ((f / "config.json").unlink(), os.mkfifo(f / "config.json")),
        "config.json is missing",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_of_text_models(name: str, text_encoder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    apply, message = FAULTS[name]
    apply(folder)
    started = time.monotonic()
    with pytest.raises(DataError) as caught:
        PretrainedEncoder(folder, EncoderChoice(folder=str(folder)), text=True)
    assert time.monotonic() - started < 5
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert str(caught.value).isprintable()


def test_kinds_of_models_are_not_confused(text_encoder: Path, tmp_path: Path) -> None:
    choice = EncoderChoice(folder=str(text_encoder))
    with pytest.raises(
        DataError, match="a model of type bert does not encode audio; expected one like wav2vec2"
    ):
        PretrainedEncoder(text_encoder, choice, text=False)
    speech = make_speech_encoder(tmp_path / "speech")
    PretrainedEncoder(speech, choice, text=False)
    (speech / "tokenizer.json").write_bytes((text_encoder / "tokenizer.json").read_bytes())
    config("vocab_size", 23)(speech)
    with pytest.raises(DataError, match="a model of type wav2vec2 does not encode text"):
        PretrainedEncoder(speech, choice, text=True)
    for changed in (config("conv_stride", [5]), config("conv_kernel", None), config("conv_kernel", [])):
        broken = shutil.copytree(speech, tmp_path / "broken", dirs_exist_ok=True)
        changed(broken)
        with pytest.raises(DataError, match=r"broken"):
            PretrainedEncoder(broken, choice, text=False)
    config("conv_kernel", [0, 3])(broken)
    with pytest.raises(DataError, match=r"conv_kernel is \[0, 3\], expected a whole number from 1"):
        PretrainedEncoder(broken, choice, text=False)


def test_panics_of_a_tokenizer_are_one_line(
    text_encoder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(text_encoder, tmp_path / "encoder")
    backtrack(folder)
    source = TokenSource(folder, 9)
    with pytest.raises(
        DataError, match=r"tokenizer.json: fails on a text \(.*retry-limit-in-match"
    ) as caught:
        source.read(["a" * 40 + "b"])
    assert str(folder) in str(caught.value)
    with pytest.raises(DataError, match=r"tokenizer.json: fails on a text"):
        ContextTokenizer(folder, 9, 3).contexts(["a" * 40 + "b"], ["x"])
    assert capfd.readouterr().err == ""
    os.write(2, b"later\n")  # standard error works as before
    assert capfd.readouterr().err == "later\n"


def test_hidden_states_refuse_faults(text_encoder: Path, tmp_path: Path) -> None:
    for name, (apply, _) in FAULTS.items():
        if name in ("padding out of range", "an odd epsilon", "no heads", "a float as size", "a pointer"):
            folder = shutil.copytree(text_encoder, tmp_path / name)
            apply(folder)
            with pytest.raises(CaratError, match=name):
                HuggingFaceSource(folder)


def test_models_are_measured_without_memory_or_randomness(text_encoder: Path) -> None:
    before = torch.random.get_rng_state()
    size = measure(lambda: torch.nn.Linear(1 << 20, 1 << 20))
    assert size.parameters == 4 * ((1 << 40) + (1 << 20))
    assert size.in_training == 5 * size.parameters
    assert torch.equal(torch.random.get_rng_state(), before)


def test_long_texts_are_read_as_far_as_they_are_used(text_run: TrainedRun, text_encoder: Path) -> None:
    predictor = load(text_run.folder)
    start = "so glad tears we are not very lost fun day now here "
    texts = [start * 3, start * 200_000, " " * 3_000_000 + start * 3, start + "!" * 3_000_000]
    started = time.monotonic()
    predictions = predictor.predict_text(texts, words=2)
    assert time.monotonic() - started < 20
    assert [len(prediction.text) for prediction in predictions] == [len(text) for text in texts]
    first = predictions[0]
    for other in predictions[1:3]:
        assert list(other.scores.values()) == pytest.approx(list(first.scores.values()), abs=1e-6)
        assert other.words == first.words
    limit = predictor.reader.max_length
    group = next(
        predictor.reader.occlude([start * 1000], [predictor.reader.resolve_contexts(["a"], None, None)[0]], 1)
    )
    parts = group[0][2]
    assert limit - 2 <= len(parts) <= limit
    assert max(len(part.text) for part in parts) <= 2 * limit * 6


def test_cuts() -> None:
    assert cut("so glad", 3) == "so glad"
    assert cut("  " + "a" * 5000, 3) == "a" * 3072
    assert len(cut("a" * 3_000_000, 8192)) == MAX_CHARACTERS
    long = "a" * 4000 + "b" * 4000
    assert cut_middle(long, 3) == "a" * 3072 + " " + "b" * 3072
    assert cut_middle(long, 5) == long


def test_texts_are_tokenized_in_parts_with_the_same_result(
    text_encoder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["so glad", "", "tears " * 20, "a", "we are not"]
    tokenizer = read_tokenizer(text_encoder)
    whole = encode(tokenizer, texts)
    assert whole[0] == [2, 11, 17, 3]
    monkeypatch.setattr("carat.utils.hugging_face.MAX_CHARACTERS", 9)
    assert encode(tokenizer, texts) == whole


def test_half_of_a_surrogate_pair_is_refused(text_run: TrainedRun) -> None:
    with pytest.raises(DataError, match="text 2 of 2: half of a surrogate pair"):
        load(text_run.folder).predict_text(["so", "glad \ud83d"])


ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        3,
        2.5,
        10**30,
        1e300,
        "",
        "x",
        "\x00",
        [],
        [1],
        {},
        {"a": 1},
        "gelu",
        "bert",
        "roberta",
    ]
)


@settings(
    max_examples=int(os.environ.get("CARAT_FUZZ", "60")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_fuzzed_configurations(
    data: st.DataObject, text_encoder: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(text_encoder, folder)
    name = data.draw(st.sampled_from(["config.json", "config.json", "tokenizer.json"]))
    content = json.loads((folder / name).read_text())
    for _ in range(data.draw(st.integers(1, 2))):
        inner = content
        while True:
            key = data.draw(st.sampled_from(sorted(inner)))
            if isinstance(inner[key], dict) and inner[key] and data.draw(st.booleans()):
                inner = inner[key]
                continue
            if data.draw(st.integers(0, 4)):
                inner[key] = copy.deepcopy(data.draw(ODD))
            else:
                del inner[key]
            break
        if not content:
            break
    (folder / name).write_text(json.dumps(content))
    message = ""
    try:
        encoder = PretrainedEncoder(folder, EncoderChoice(folder=str(folder)), text=True)
        ids = TokenSource(folder, 9).read(["so glad"])[0]
        assert ids is not None
        states, mask = encoder(
            torch.from_numpy(np.asarray(ids))[None], torch.ones(1, len(ids), dtype=torch.bool)
        )
        assert states.shape[:2] == mask.shape
    except CaratError as error:
        message = str(error)
    assert "\n" not in message


def test_an_unchanged_folder_passes(text_encoder: Path) -> None:
    check_folder(text_encoder, tokenizer=True)
