"""The application of Ray Serve: what a replica answers, and two of them behind a local proxy of Ray."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import carat
from carat.serve.client import ServerError
from carat.serve.ray_app import ray_app, resolve_runs
from carat.serve.settings import Settings
from carat.serve.workspace import PREFIX
from carat.training.train import TrainedRun
from carat.utils.errors import ConfigError, RunError
from tests.serve.conftest import HOST
from tests.serve.test_server import check_many_users, leftovers

TOKEN = "a-token-of-a-test"
LOCAL = Settings(load={"device": "cpu"})
TEXT = {"texts": ["so glad"]}


@contextmanager
def replica(run: TrainedRun, settings: Settings, sender: str) -> Iterator[Any]:
    """Run the application of a replica in this process; yields a client that sends from an address."""
    from starlette.testclient import TestClient

    from carat.serve.replica import make_builder

    app = make_builder([str(run.folder)], settings)()
    with TestClient(app, base_url=HOST, client=(sender, 5000)) as client:
        yield client


def test_a_replica_without_a_token_answers_only_its_machine(
    text_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with replica(text_run, LOCAL, "127.0.0.1") as client:
        assert client.post("/v1/predict/text", json=TEXT).json()["predictions"][0]["labels"] == ["happy"]
        assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 1
    assert list(tmp_path.glob(f"{PREFIX}*")) == []
    for sender in ("192.168.1.5", "fe80::1", "unknown"):
        with replica(text_run, LOCAL, sender) as client:
            for path in ("/v1/health", "/", "/openapi.json"):
                answer = client.get(path)
                assert answer.status_code == 403
                assert "only with a token" in answer.json()["error"]
                assert answer.headers["x-content-type-options"] == "nosniff"
    with replica(text_run, replace(LOCAL, insecure=True), "192.168.1.5") as client:
        assert client.get("/v1/runs").status_code == 200


def test_a_replica_checks_token_and_host_under_any_prefix(text_run: TrainedRun) -> None:
    from starlette.testclient import TestClient

    from carat.serve.replica import make_builder

    app = make_builder([str(text_run.folder)], replace(LOCAL, token=TOKEN))()
    with TestClient(app, base_url=HOST, root_path="/emotion", client=("192.168.1.5", 5000)) as client:
        for path in ("/emotion/v1/runs", "/emotion/metrics", "/v1/runs", "/emotion//v1/runs"):
            assert client.get(path).status_code == 401, path
        token = {"Authorization": f"Bearer {TOKEN}"}
        assert client.get("/emotion/v1/runs", headers=token).status_code == 200
        assert client.get("/emotion/v1/runs", headers=token | {"Host": "evil.org"}).status_code == 400
        assert "script-src 'self'" in client.get("/emotion/").headers["content-security-policy"]


def test_a_replica_refuses_clips_with_one_line(text_run: TrainedRun) -> None:
    with replica(text_run, LOCAL, "127.0.0.1") as client:
        answer = client.post("/v1/predict/clip", files={"file": ("a.wav", b"sound")})
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("clips are not scored by replicas")
        assert [run["reads_clips"] for run in client.get("/v1/runs").json()["runs"]] == [False]
        assert client.get(f"/v1/jobs/{'a' * 22}").status_code == 404


def test_wrong_applications_are_refused(
    text_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="lets other machines use the server"):
        ray_app([text_run.folder], Settings(host="0.0.0.0"))
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"Ray Serve is not installed: .*carat-emotion\[ray,serve\]"):
        ray_app([text_run.folder])
    with pytest.raises(RunError, match="none: no finished run"):
        resolve_runs([tmp_path / "none"])
    monkeypatch.chdir(text_run.folder.parent)
    assert resolve_runs([text_run.folder.name, "hf://owner/name"]) == [
        str(text_run.folder),
        "hf://owner/name",
    ]


@pytest.mark.slow
def test_two_replicas_answer_as_the_predictor(
    text_run: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray", reason="Ray is not installed")
    serve = pytest.importorskip("ray.serve", reason="ray[serve] is not installed", exc_type=ImportError)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")  # sockets need short paths
    settings = replace(LOCAL, token=TOKEN)
    ray.init(
        address="local",
        num_cpus=3,
        include_dashboard=False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    try:
        port = free_port()
        serve.start(http_options={"host": "127.0.0.1", "port": port}, logging_config={"log_level": "ERROR"})
        serve.run(ray_app([text_run.folder], settings, replicas=2, cpus=0.5))
        url = f"http://127.0.0.1:{port}"
        check_answers(url, text_run)
        assert len(list(tmp_path.glob(f"{PREFIX}*"))) == 2
        serve.shutdown()
    finally:
        ray.shutdown()
    assert leftovers(tmp_path) == []


def check_answers(url: str, run: TrainedRun) -> None:
    client, predictor = carat.Client(url, TOKEN), carat.load(run, device="cpu")
    texts = ["so glad", "such tears", "hate"]
    for found, expected in zip(
        client.predict_text(texts, words=2), predictor.predict_text(texts, words=2), strict=True
    ):
        assert found.scores == pytest.approx(expected.scores, abs=1e-6)
        assert (found.labels, found.words) == (expected.labels, expected.words)
    check_many_users(url, predictor)
    with pytest.raises(ServerError, match="a token is needed") as refused:
        carat.Client(url).runs()
    assert refused.value.status == 401
    with ThreadPoolExecutor(8) as pool:
        metrics = list(pool.map(lambda _: client._request("GET", "/metrics").read(), range(40)))
    assert len({served(text) for text in metrics}) > 1  # both replicas answer


def served(metrics: bytes) -> bytes:
    """The line with the time at which a replica had its first request."""
    return next((line for line in metrics.splitlines() if line.startswith(b"carat_requests_created")), b"")


def free_port() -> int:
    import socket

    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        port: int = opened.getsockname()[1]
        return port
