"""Clips through the API: upload, progress, result, cancel, delete, expiry, and children that die."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from carat.serve.jobs import Jobs, safe_name
from carat.serve.settings import Limits, Settings
from carat.serve.workspace import PREFIX, open_workspace, remove_leftovers
from carat.training.train import TrainedRun
from tests.serve import workers
from tests.serve.conftest import HOST

Server = Callable[..., Any]
FINAL = ("finished", "failed", "cancelled")


@pytest.fixture
def server(trained: TrainedRun, tmp_path: Path) -> Iterator[Server]:
    """Starts a server whose clips are scored by a child without models; returns a client."""
    from starlette.testclient import TestClient

    from carat.serve.app import make_app
    from carat.serve.served_run import load_runs

    with ExitStack() as stack:

        def start(names: tuple[str, ...] = ("tiny",), **limits: Any) -> TestClient:
            runs = load_runs({"tiny": str(trained.folder)}, device="cpu")
            runs["tiny"].clip_problem = ""
            runs = dict.fromkeys(names, runs["tiny"]) if names == ("tiny",) else _renamed(runs["tiny"], names)
            workspace = tmp_path / "workspace"
            workspace.mkdir()
            settings = Settings(limits=Limits(**limits))
            app = make_app(runs, settings, workspace, clip_worker=workers.stub)
            return stack.enter_context(TestClient(app, base_url=HOST))

        yield start


def _renamed(run: Any, names: tuple[str, ...]) -> dict[str, Any]:
    from carat.serve.served_run import ServedRun

    made = {name: ServedRun(name, run.predictor) for name in names}
    for other in made.values():
        other.clip_problem = ""
    return made


def post(client: Any, name: str = "a.wav", content: bytes = b"sound", **fields: Any) -> Any:
    return client.post("/v1/predict/clip", files={"file": (name, content)}, data=fields)


def wait_for(client: Any, id: str, *states: str, seconds: float = 60.0) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while (job := client.get(f"/v1/jobs/{id}").json())["state"] not in (states or FINAL):
        assert time.monotonic() < end, job
        time.sleep(0.05)
    return dict(job)


def files_under(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_a_clip_from_upload_to_deletion(server: Server, tmp_path: Path) -> None:
    client = server(("one", "two"))
    transcript = ("transcript", ("said.srt", b"+words"))
    files = [("file", ("../../my clip.wav", b"sound")), transcript]
    answer = client.post("/v1/predict/clip", files=files, data={"run": ["two", "one"], "segments": "whole"})
    assert answer.status_code == 202, answer.text
    id = answer.json()["id"]
    assert (answer.json()["file"], answer.json()["runs"]) == ("my clip.wav", ["two", "one"])
    with client.stream("GET", f"/v1/jobs/{id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: ")]
    assert events[-1]["state"] == "finished"
    steps = [event["progress"]["step"] for event in events if event["progress"]]
    assert any(step in ("starting", "my clip.wav, stub") for step in steps)
    for run in ("one", "two"):
        for format in ("json", "csv", "eaf", "vtt", "html"):
            result = client.get(f"/v1/jobs/{id}/result/{format}", params={"run": run})
            assert result.content == f"{run}:sound+words".encode()
            assert f"my%20clip-{run}.{format}" in result.headers["content-disposition"]
    assert client.get(f"/v1/jobs/{id}/result/json").content == b"two:sound+words"
    missing = client.get(f"/v1/jobs/{id}/result/TextGrid")
    assert (missing.status_code, missing.json()["error"]) == (404, "TextGrid files need a package")
    assert client.get(f"/v1/jobs/{id}/result/json", params={"run": "x"}).status_code == 404
    assert "my clip.wav" not in files_under(tmp_path / "workspace")
    assert client.delete(f"/v1/jobs/{id}").status_code == 204
    assert files_under(tmp_path / "workspace") == []
    assert client.get(f"/v1/jobs/{id}").status_code == 404


def test_jobs_wait_for_each_other_and_too_many_are_refused(server: Server) -> None:
    client = server(max_jobs=2)
    first = post(client, "slow.wav").json()["id"]
    second = post(client, "b.wav").json()["id"]
    refused = post(client, "c.wav")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "10")
    assert "carat_jobs 2.0" in client.get("/metrics").text
    assert client.get(f"/v1/jobs/{second}/result/json").status_code == 404
    wait_for(client, first, "running")
    assert client.post(f"/v1/jobs/{first}/cancel").status_code == 200
    assert wait_for(client, first)["state"] == "cancelled"
    assert wait_for(client, second)["state"] == "finished"
    assert client.post(f"/v1/jobs/{second}/cancel").json()["state"] == "finished"
    assert client.get(f"/v1/jobs/{first}/result/json").json() == {"error": "no result: the clip cancelled"}


def test_a_job_that_is_deleted_while_it_runs_leaves_nothing(server: Server, tmp_path: Path) -> None:
    client = server()
    id = post(client, "slow.wav").json()["id"]
    wait_for(client, id, "running")
    assert client.delete(f"/v1/jobs/{id}").status_code == 204
    assert wait_for(client, post(client).json()["id"])["state"] == "finished"
    assert [path.name for path in (tmp_path / "workspace").iterdir()] != []
    assert not (tmp_path / "workspace" / id).exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crash.wav", "the process that scored the clip was killed by signal 9"),
        ("fault.wav", "unexpected KeyError; please report this fault of carat"),
        ("broken.wav", "broken.wav: cannot be decoded; see workers.py"),
    ],
)
def test_a_clip_that_fails_has_a_reason_and_others_go_on(
    server: Server, name: str, message: str, tmp_path: Path
) -> None:
    client = server()
    failing, good = post(client, name).json()["id"], post(client).json()["id"]
    job = wait_for(client, failing)
    assert (job["state"], job["error"]) == ("failed", message)
    assert wait_for(client, good)["state"] == "finished"
    assert name not in files_under(tmp_path / "workspace")


def test_a_worker_that_is_killed_fails_its_job_only(server: Server) -> None:
    client = server()
    running, waiting = post(client, "slow.wav").json()["id"], post(client, "b.wav").json()["id"]
    wait_for(client, running, "running")
    (worker,) = (child for child in multiprocessing.active_children() if child.name == "clips")
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    job = wait_for(client, running)
    assert (job["state"], job["error"]) == (
        "failed",
        "the process that scored the clip was killed by signal 9",
    )
    assert client.get("/v1/health").json()["status"] == "ok"
    assert wait_for(client, waiting)["state"] == "finished"
    assert wait_for(client, post(client).json()["id"])["state"] == "finished"


def test_a_job_has_limited_time(server: Server) -> None:
    client = server(job_seconds=1.0)
    job = wait_for(client, post(client, "slow.wav").json()["id"])
    assert (job["state"], job["error"]) == ("failed", "took longer than 1 s")


def test_what_is_unfinished_at_the_end_fails_with_a_reason(server: Server, tmp_path: Path) -> None:
    client = server()
    ids = [post(client, "slow.wav").json()["id"], post(client).json()["id"]]
    wait_for(client, ids[0], "running")
    client.__exit__(None, None, None)
    jobs = Jobs(tmp_path / "workspace", 3600)
    assert [(jobs.read(id).state, jobs.read(id).error) for id in ids] == [
        ("failed", "the server was shut down")
    ] * 2


def test_results_expire(server: Server, tmp_path: Path) -> None:
    client = server(keep_seconds=1000.0)
    id = post(client).json()["id"]
    assert wait_for(client, id)["expires"] == pytest.approx(time.time() + 1000, abs=60)
    jobs = client.app.state.server.jobs
    jobs.remove_expired(time.time() + 900)
    assert client.get(f"/v1/jobs/{id}").status_code == 200
    jobs.remove_expired(time.time() + 1100)
    assert client.get(f"/v1/jobs/{id}").status_code == 404
    assert files_under(tmp_path / "workspace") == []


def test_a_job_of_a_dead_process_has_failed(server: Server, tmp_path: Path) -> None:
    client = server()
    jobs = client.app.state.server.jobs
    job = jobs.create("a.wav", ["tiny"])
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    jobs.write(job.model_copy(update={"owner": dead, "state": "running"}))
    answer = client.get(f"/v1/jobs/{job.id}").json()
    assert (answer["state"], answer["error"]) == ("failed", "the server process of the job ended")


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"segments": "words"}, 422, "segments"),
        ({"segments": "seconds=nan"}, 422, "seconds"),
        ({"words": "-1"}, 422, "words"),
        ({"words": "many"}, 422, "words"),
        ({"run": "other"}, 404, "no run 'other'"),
        ({"run": ["x"] * 5}, 413, "5 runs"),
    ],
)
def test_wrong_options_are_one_line(
    server: Server, fields: dict[str, Any], status: int, message: str, tmp_path: Path
) -> None:
    answer = post(server(), **fields)
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert message in answer.json()["error"]
    assert list((tmp_path / "workspace").iterdir()) == []


def test_unknown_transcripts_and_large_clips_are_refused(server: Server, tmp_path: Path) -> None:
    client = server(max_clip_mb=1)
    files = {"file": ("a.wav", b"x"), "transcript": ("a.exe", b"x")}
    assert client.post("/v1/predict/clip", files=files).status_code == 422
    assert post(client, content=b"x" * (3 << 20)).status_code == 413
    assert client.post("/v1/predict/clip", json={"file": "a"}).status_code == 422
    assert client.post("/v1/predict/clip", data={"file": "a"}).status_code in (415, 422)
    assert list((tmp_path / "workspace").iterdir()) == []


@pytest.mark.parametrize("id", ["x", "..", "%2e%2e%2fetc", "a" * 22, "é" * 22, "." * 22, "a" * 5000])
def test_unknown_jobs(server: Server, id: str) -> None:
    client = server()
    for path in ("", "/events", "/result/json"):
        assert client.get(f"/v1/jobs/{id}{path}").status_code == 404
    assert client.delete(f"/v1/jobs/{id}").status_code in (404, 405)
    assert client.post(f"/v1/jobs/{id}/cancel").status_code == 404


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("", "clip"),
        ("...", "clip"),
        ("a/b\\c.mp4", "c.mp4"),
        ("x\0\n\x1b.wav", "x___.wav"),
        ("é" * 99 + ".webm", "é" * 47 + ".webm"),
        (".htaccess", "htaccess"),
    ],
)
def test_names_of_clips_are_made_safe(name: str, expected: str) -> None:
    assert safe_name(name, "clip") == expected


def test_the_workspace_is_private_and_does_not_survive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    old, foreign = tmp_path / f"{PREFIX}old", tmp_path / f"{PREFIX}file"
    old.mkdir()
    (old / "clip.mp4").write_text("x")
    foreign.write_text("x")
    (tmp_path / f"{PREFIX}link").symlink_to(tmp_path / "elsewhere")
    for path in (old, foreign):
        os.utime(path, (0, 0))
    with open_workspace() as workspace:
        assert workspace.stat().st_mode & 0o777 == 0o700
        assert not old.exists()
        assert foreign.exists()
        (workspace / "clip.mp4").write_text("x")
        os.utime(workspace, (0, 0))
        remove_leftovers(tmp_path)  # by another server
        assert (workspace / "clip.mp4").exists()
    assert not workspace.exists()


def test_a_killed_server_leaves_no_upload(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import time; from carat.serve.workspace import open_workspace\n"
        "with open_workspace() as folder:\n"
        "    (folder / 'clip.mp4').write_text('x'); print(folder, flush=True); time.sleep(60)"
    )
    environment = os.environ | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().decode().strip())
        assert (folder / "clip.mp4").exists()
        process.send_signal(signal.SIGKILL)
    end = time.monotonic() + 30
    while folder.exists():
        assert time.monotonic() < end
        time.sleep(0.05)
