"""Who may use the server, and what every answer says to browsers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from carat.serve.settings import Limits, Settings
from carat.training.train import TrainedRun
from carat.utils.errors import ConfigError

TOKEN = "0123456789abcdef"
TEXT = {"texts": ["so glad"]}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(host="0.0.0.0"), "--host 0.0.0.0 lets other machines .*--token.*--insecure"),
        (Settings(host="example.org"), "lets other machines"),
        (Settings(token="short"), "--token needs at least 16"),
        (Settings(token="sixteen characters"), "--token needs .* without spaces"),
        (Settings(limits=Limits(max_texts=0)), "--max-texts 0: expected a positive number"),
        (Settings(limits=Limits(wait_seconds=float("nan"))), "--wait-seconds nan"),
    ],
)
def test_unsafe_settings_are_refused(settings: Settings, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings.check()


@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(host="::1"), Settings(host="0.0.0.0", token=TOKEN), Settings("::", insecure=True)],
)
def test_safe_settings_are_accepted(settings: Settings) -> None:
    settings.check()


def test_token_is_needed_for_everything_but_health_and_the_page(
    serve: Callable[..., Any], text_run: TrainedRun
) -> None:
    client = serve(text_run, settings=Settings(token=TOKEN))
    for path in ("/v1/runs", "/metrics", "/v1/jobs/x", "/v1/anything"):
        for headers in ({}, {"Authorization": "Bearer " + TOKEN[:-1] + "x"}, {"Authorization": TOKEN}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401
            assert "a token is needed" in answer.json()["error"]
            assert answer.headers["www-authenticate"] == "Bearer"
    assert client.post("/v1/predict/text", json=TEXT).status_code == 401
    assert client.get("/v1/health").json()["status"] == "ok"
    assert client.get("/").status_code == 200
    headers = {"Authorization": f"bearer {TOKEN}"}
    assert client.get("/v1/runs", headers=headers).status_code == 200
    assert client.post("/v1/predict/text", json=TEXT, headers=headers).status_code == 200


def test_other_host_names_are_refused(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run, settings=Settings(allowed_hosts=("Emotion.example",)))
    for host in ("evil.org", "evil.org:8000", "127.0.0.1.evil.org", "localhost@evil.org", "", "[::1"):
        answer = client.get("/v1/health", headers={"Host": host})
        assert answer.status_code == 400, host
        assert "--allow-host" in answer.json()["error"]
    for host in ("127.0.0.1:9", "localhost", "[::1]:8000", "192.168.1.5:8000", "emotion.example"):
        assert client.get("/v1/health", headers={"Host": host}).status_code == 200, host


def test_pages_of_other_sites_cannot_send(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run)
    for headers in (
        {"Origin": "http://evil.org"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ):
        for send in (
            lambda headers: client.post("/v1/predict/text", json=TEXT, headers=headers),
            lambda headers: client.post("/v1/predict/clip", files={"file": b"x"}, headers=headers),
            lambda headers: client.delete("/v1/jobs/x", headers=headers),
        ):
            answer = send(headers)
            assert answer.status_code == 403, headers
            assert not any(name.startswith("access-control") for name in answer.headers)
    own = {"Origin": "http://127.0.0.1:8000", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/v1/predict/text", json=TEXT, headers=own).status_code == 200
    preflight = client.options("/v1/predict/text", headers={"Origin": "http://evil.org"})
    assert not any(name.startswith("access-control") for name in preflight.headers)


def test_headers_of_all_answers(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run)
    for path in ("/", "/static/app.js", "/v1/runs", "/v1/none", "/metrics", "/openapi.json"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff", path
        assert headers["referrer-policy"] == "no-referrer"
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'")
        assert "frame-ancestors" in policy
        assert "unsafe" not in policy
        assert "*" not in policy
        assert "server" not in headers


def test_an_unexpected_error_says_nothing_of_what_was_sent(
    serve: Callable[..., Any], text_run: TrainedRun, logged: list[str]
) -> None:
    client = serve(text_run)
    run = client.app.state.server.runs["text"]

    def fail(item: Any) -> None:
        raise KeyError("a secret text")

    run.check_text = fail
    answer = client.post("/v1/predict/text", json={"texts": ["a secret text"]})
    assert answer.status_code == 500
    assert answer.json() == {"error": "internal error; please report this fault of carat"}
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert any("unexpected KeyError in test_security.py, line" in line for line in logged)
    assert not any("secret" in line for line in logged)


def test_files_of_the_page_are_a_fixed_list(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    client = serve(text_run)
    for name in ("../settings.py", "..%2fsettings.py", "%2e%2e/app.py", "app.py", "/etc/passwd", "."):
        assert client.get(f"/static/{name}").status_code == 404, name


def test_nothing_loads_from_elsewhere(serve: Callable[..., Any], text_run: TrainedRun) -> None:
    from carat.serve.page_files import STATIC

    assert {"index.html", "app.js", "app.css", "strings.js", "clip.html", "page.js"} <= set(STATIC)
    for name, file in STATIC.items():
        text = file.read_text(encoding="utf-8")
        assert "http://" not in text.replace("http://www.w3.org", ""), name
        assert "https://" not in text, name
    for name in ("index.html", "clip.html"):
        page = STATIC[name].read_text(encoding="utf-8")
        assert "style=" not in page
        assert " on" not in page.replace(" on ", " ").replace(" one", " ")  # handlers of events
        assert "<script>" not in page
        assert "<style" not in page
