"""The page's modules in Node: what they ask of the server, and what they show of its answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from carat.serve.page_files import FOLDER
from carat.serve.schemas import RunInfo, TextResponse, TextResult, WordEffect

NODE = shutil.which("node")
SCRIPT = Path(__file__).with_name("page_in_node.mjs")
THRESHOLDS = {"happy": 0.5, "sad": 0.25}

pytestmark = pytest.mark.skipif(NODE is None, reason="Node is not installed")


def run_info(name: str, context: int = 0) -> dict[str, Any]:
    info = RunInfo(
        name=name,
        method="linear",
        labels=list(THRESHOLDS),
        thresholds=THRESHOLDS,
        calibrated=True,
        modalities={},
        validation={"micro_f1": 0.61},
        trained_on="films",
        reads_text=True,
        reads_clips=False,
        context=context,
    )
    return info.model_dump()


def text_result(text: str, **values: Any) -> TextResult:
    return TextResult(text=text, scores={"happy": 0.75, "sad": 0.125}, labels=["happy"], **values)


def show(runs: list[Any], answers: list[Any], text: str, tmp_path: Path, dialogue: bool = False) -> Any:
    """Open the page, enter a text and score it."""
    for file in FOLDER.iterdir():
        shutil.copy(file, tmp_path)
    (tmp_path / "package.json").write_text('{"type": "module"}')
    values = {"runs": runs, "answers": answers, "text": text, "dialogue": dialogue}
    command = [str(NODE), str(SCRIPT), str(tmp_path), json.dumps(values)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answer(run: str, *predictions: TextResult) -> dict[str, Any]:
    return TextResponse(run=run, thresholds=THRESHOLDS, predictions=list(predictions)).model_dump()


def test_a_text_gets_bars_and_colored_words(tmp_path: Path) -> None:
    text = "\U0001f600 so <b> glad"
    effects = [
        WordEffect(start=2, end=4, drops={"happy": -0.2, "sad": 0.0}),
        WordEffect(start=9, end=13, drops={"happy": 0.4, "sad": 0.0}),
    ]
    result = text_result(text, effects=effects, decisions={"happy": "present", "sad": "unsure"})
    page = show([run_info("mine")], [answer("mine", result)], text, tmp_path)
    assert page["isShown"]
    assert page["empty"] == []
    assert "linear" in page["about"]
    assert "0.61" in page["about"]
    assert page["sent"] == [
        {"path": "v1/predict/text", "run": "mine", "texts": [text], "words": 0, "speakers": [""]}
    ]
    (card,) = page["cards"]
    assert card["text"] == text
    assert card["words"] == [["so", "word down"], ["glad", "word up"]]
    assert card["bars"] == [["happy0.75✓", "sad0.13?"]]
    assert card["limits"] == ["50%", "25%"]


def test_turns_have_speakers_and_context_where_the_run_reads_it(tmp_path: Path) -> None:
    text = "Ann: Where is he?\n\nBen: Gone: left.\nno speaker"
    predictions = [text_result("a", speaker="Ann"), text_result("b", speaker="Ben"), text_result("c")]
    answers = [answer("mine", *predictions), answer("other", *predictions)]
    runs = [run_info("mine", context=8), run_info("other")]
    page = show(runs, answers, text, tmp_path, dialogue=True)
    first, second = page["sent"]
    assert first["texts"] == ["Where is he?", "Gone: left.", "no speaker"]
    assert first["speakers"] == ["Ann", "Ben", ""]
    assert first["conversations"] == ["page"] * 3
    assert "conversations" not in second
    assert [card["speaker"] for card in page["cards"]] == [["Ann"], ["Ben"], []]
    assert [len(card["bars"]) for card in page["cards"]] == [2, 2, 2]


def test_errors_are_shown_and_the_token_is_asked_for(tmp_path: Path) -> None:
    refused = {"status": 422, "error": "the run says no"}
    page = show([run_info("mine")], [refused], "so", tmp_path)
    assert (page["problem"], page["signIn"]) == ("the run says no", False)
    missing = {"status": 401, "error": "a token is needed"}
    page = show([run_info("mine")], [missing], "so", tmp_path)
    assert (page["problem"], page["signIn"]) == ("a token is needed", True)
