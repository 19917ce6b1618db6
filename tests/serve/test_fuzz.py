"""Requests of every shape: the server answers each of them, and never with an error of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from carat.training.train import TrainedRun

KEYS = ("texts", "run", "words", "conversations", "speakers", "x\ud800", "")
BASIC = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just("so glad")
VALUES = st.recursive(
    BASIC,
    lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=3), x, max_size=3),
    max_leaves=8,
)
REQUESTS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5) | VALUES
PATHS = (
    "/v1/predict/text",
    "/v1/predict/features",
    "/v1/predict/clip",
    "/v1/jobs/x/cancel",
    "/v1/none",
    "//",
)
FORM = (
    b'--B\r\nContent-Disposition: form-data; name="run"\r\n\r\ntext\r\n'
    b'--B\r\nContent-Disposition: form-data; name="segments"\r\n\r\nwords\r\n'
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.npz"\r\n'
    b"Content-Type: application/zip\r\n\r\nPK\x03\x04\r\n--B--\r\n"
)
OUR_OWN = {200, 400, 403, 404, 405, 413, 415, 422}
many = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def client(serve: Callable[..., Any], text_run: TrainedRun) -> Any:
    return serve(text_run)


def check(answer: Any) -> None:
    assert answer.status_code in OUR_OWN, answer.text
    if answer.status_code != 200:
        (message,) = answer.json().values()
        assert message
        assert "\n" not in message
        assert len(message) <= 400


@many
@given(values=REQUESTS)
def test_any_json(client: Any, values: Any) -> None:
    content = json.dumps(values)
    headers = {"Content-Type": "application/json"}
    check(client.post("/v1/predict/text", content=content.encode(), headers=headers))


@many
@given(data=st.data(), path=st.sampled_from(PATHS))
def test_any_form(client: Any, data: st.DataObject, path: str) -> None:
    content = bytearray(FORM)
    for _ in range(data.draw(st.integers(0, 5))):
        place = data.draw(st.integers(0, len(content)))
        length = data.draw(st.integers(0, 9))
        content[place : place + length] = data.draw(st.binary(max_size=9))
    boundary = data.draw(st.sampled_from(["B", "", "B" * 300, '"B"', "é"]))
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}".encode()}
    check(client.post(path, content=bytes(content), headers=headers))


@many
@given(
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    method=st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "PATCH"]),
)
def test_any_path(client: Any, path: str, method: str) -> None:
    from urllib.parse import quote

    for start in ("/", "/static/", "/v1/", "/v1/jobs/"):
        answer = client.request(method, f"{start}{quote(path)}")
        assert answer.status_code < 500
