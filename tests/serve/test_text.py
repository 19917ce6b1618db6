"""Texts through the API: the same answers as the predictor, one line for what cannot be scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import carat
from carat.runs import locating
from carat.serve.served_run import find_runs
from carat.training.train import TrainedRun
from carat.utils.errors import ConfigError, RunError
from tests.models.encoders.test_context import calls, calls_run

__all__ = ["calls", "calls_run"]  # fixtures

TEXTS = ["I am so glad", "such tears and fun, now", "hate"]


def test_answers_are_those_of_the_predictor(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run)
    answer = client.post("/v1/predict/text", json={"texts": TEXTS, "words": 2, "speakers": ["A", "B", ""]})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    expected = carat.load(text_run, device="cpu").predict_text(TEXTS, words=2)
    assert body["run"] == "text"
    assert body["thresholds"] == carat.load(text_run, device="cpu").thresholds
    assert [x["speaker"] for x in body["predictions"]] == ["A", "B", ""]
    for found, prediction in zip(body["predictions"], expected, strict=True):
        assert found["scores"] == pytest.approx(prediction.scores, abs=1e-6)
        assert (found["labels"], found["text"]) == (prediction.labels, prediction.text)
        assert found["words"] == prediction.words
        words = [found["text"][effect["start"] : effect["end"]] for effect in found["effects"]]
        assert words == found["text"].split()


def test_context_comes_from_the_conversation(serve: Callable[..., Any], calls_run: TrainedRun) -> None:
    client = serve(calls_run)
    names = ["a", "b", "a"]
    body = client.post("/v1/predict/text", json={"texts": TEXTS, "conversations": names, "words": 1}).json()
    expected = carat.load(calls_run, device="cpu").predict_text(TEXTS, words=1, conversations=names)
    for found, prediction in zip(body["predictions"], expected, strict=True):
        assert found["scores"] == pytest.approx(prediction.scores, abs=1e-6)
        assert found["words"] == prediction.words
    assert [bool(x["context_drops"]) for x in body["predictions"]] == [True, False, True]
    assert client.get("/v1/runs").json()["runs"][0]["context"] == 8


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"texts": []}, 422, "texts: List should have at least 1 item"),
        ({"texts": ["so", " "]}, 422, "text 2 of 2 is empty"),
        ({"texts": ["so", 3]}, 422, "texts.1: Input should be a valid string"),
        ({"texts": "so"}, 422, "texts: Input should be a valid list"),
        ({"texts": ["so"], "words": -1}, 422, "words: Input should be greater than or equal to 0"),
        ({"texts": ["so"], "words": 1.5}, 422, "words: Input should be a valid integer"),
        ({"texts": ["so"], "word": 1}, 422, "word: Extra inputs are not permitted"),
        ({"texts": ["so"], "run": "txt"}, 404, "no run 'txt'; did you mean 'text'?"),
        ({"texts": ["so"], "speakers": ["A", "B"]}, 422, "1 texts, but 2 speakers"),
        ({"texts": ["so"], "conversations": ["a"]}, 422, "text: the run uses no context"),
        ({"texts": ["so"] * 257}, 413, "257 texts, the limit is 256"),
        ({"texts": ["so " * 7000]}, 413, "21000 characters in a text, the limit is 20000"),
        ({"texts": ["so " * 5000], "words": 1}, 413, "5000 words with 'words', the limit is 4000"),
    ],
)
def test_what_cannot_be_scored_is_one_line(
    serve: Callable[..., Any], text_run: TrainedRun, request_: Any, status: int, message: str
) -> None:
    answer = serve(text_run).post("/v1/predict/text", json=request_)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}
    assert message in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'{"texts": ["\\ud800"]}', "application/json", 422),
        (b'{"texts": ["a"], "words": NaN}', "application/json", 422),
        (b'{"texts": ["a"], "words": 1e999}', "application/json", 422),
        (b"null", "application/json", 422),
        (b"", "application/json", 422),
        (b"texts=so", "application/x-www-form-urlencoded", 415),
        (b'{"texts": ["so"]}', "text/plain", 415),
        (b"x" * (70 << 20), "application/json", 413),
    ],
    ids=["half", "no-utf-8", "deep", "surrogate", "nan", "inf", "null", "empty", "form", "plain", "huge"],
)
def test_invalid_bodies_are_one_line(
    serve: Callable[..., Any], text_run: TrainedRun, content: bytes, kind: str, status: int
) -> None:
    answer = serve(text_run).post("/v1/predict/text", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, set(answer.json())) == (status, {"error"})


def test_a_body_of_unknown_length_is_limited(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run)
    sent = 0

    def parts() -> Any:
        nonlocal sent
        for _ in range(200):
            sent += 1
            yield b" " * (1 << 20)

    answer = client.post("/v1/predict/text", content=parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413


def test_a_run_of_features_reads_no_texts(serve: Callable[..., Any], trained: TrainedRun) -> None:
    answer = serve(trained).post("/v1/predict/text", json={"texts": ["so"]})
    assert answer.status_code == 422
    assert "/" not in answer.json()["error"].replace("and/or", "")


def test_runs_are_described_without_paths(
    serve: Callable[..., Any], text_run: TrainedRun, trained: TrainedRun
) -> None:
    answer = serve(text_run, trained).get("/v1/runs")
    first, second = answer.json()["runs"]
    assert (first["name"], first["reads_text"]) == ("text", True)
    assert (second["name"], second["reads_text"], second["reads_clips"]) == ("tiny", False, False)
    assert first["labels"] == text_run.card.labels
    assert first["thresholds"] == carat.load(text_run, device="cpu").thresholds
    assert str(text_run.folder.parent) not in answer.text
    assert "/tmp" not in answer.text


def test_runs_must_be_given_and_have_different_names(
    serve: Callable[..., Any], text_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locating, "SHIPPED", tmp_path)
    with pytest.raises(ConfigError, match="give at least one run"):
        serve()
    shutil.copytree(text_run.folder, tmp_path / "shipped")
    assert find_runs([]) == {"shipped": str(tmp_path / "shipped")}
    with pytest.raises(ConfigError, match="two runs are named 'text'"):
        serve(text_run, text_run)
    with pytest.raises(RunError, match="none"):
        serve(tmp_path / "none")


def test_the_openapi_document_has_examples_that_work(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run)
    document = client.get("/openapi.json").json()
    assert {"/v1/predict/text", "/v1/predict/clip", "/v1/jobs/{id}/events"} <= set(document["paths"])
    first, _ = document["components"]["schemas"]["TextRequest"]["examples"]
    assert client.post("/v1/predict/text", json=first).status_code == 200


def test_metrics_count_by_route(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run)
    client.post("/v1/predict/text", json={"texts": ["so", "glad"]})
    client.get("/v1/jobs/secret-id")
    text = client.get("/metrics").text
    assert 'carat_requests_total{method="POST",route="/v1/predict/text",status="200"} 1.0' in text
    assert 'carat_batch_size_sum{kind="texts"} 2.0' in text
    assert 'route="/v1/jobs/{id}",status="404"' in text
    assert "secret-id" not in text
