"""The run that carat comes with: how it reads, what it may hold, and how good it is on real test splits."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import carat
from carat.features.models import is_missing
from carat.runs.card import check_files, read_run
from carat.runs.locating import locate, shipped_runs

NAME = "english-text"
SHARED = Path(os.environ.get("CARAT_SHARED", "../shared"))
needs_encoder = pytest.mark.skipif(
    is_missing("all-minilm-l6-v2"), reason="the encoder's package is not installed"
)


def test_its_files_are_whole_small_and_without_paths_of_a_machine() -> None:
    folder = shipped_runs()[NAME]
    card, experiment = read_run(folder)
    check_files(folder, card)
    assert card.bases["text"].model == "all-minilm-l6-v2"
    assert card.calibration is not None
    assert experiment.training.init_from is None
    files = [x for x in folder.rglob("*") if x.is_file()]
    assert sum(x.stat().st_size for x in files) < 12e6
    for file in files:
        if file.suffix in (".json", ".yaml", ".md", ".csv") and file.name != "tokenizer.json":
            assert not re.search(r"/(home|root|tmp|work|usr|mnt)/", file.read_text(encoding="utf-8")), file


@needs_encoder
@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("I am so happy to see you, this is wonderful!", "happy"),
        ("She died last week and I cannot stop crying.", "sad"),
        ("How dare you lie to me, I am furious!", "anger"),
        ("I am terrified that he will come back and hurt us.", "fear"),
    ],
)
def test_plain_sentences(text: str, label: str) -> None:
    prediction = carat.load(NAME, "cpu").predict_text([text])[0]
    assert label in prediction.labels
    assert max(prediction.scores, key=lambda name: prediction.scores[name]) == label


@needs_encoder
def test_words_that_carry_an_emotion() -> None:
    prediction = carat.load(NAME, "cpu").predict_text(["I am so relieved, but I miss him"], words=2)[0]
    assert {"happy", "sad"} <= set(prediction.labels)
    assert "relieved" in prediction.words["happy"]
    assert "miss" in prediction.words["sad"]
    assert locate(NAME).name == NAME
