"""`carat serve` as a process, used by `carat.Client`: several users at once, and the end by a signal."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.data.store import Store
from carat.runs import locating
from carat.serve.client import ServerError
from carat.serve.workspace import PREFIX
from carat.training.train import TrainedRun
from carat.utils.errors import ConfigError, DataError
from tests.inference.clips.test_scoring import clip_run, write_clip

__all__ = ["clip_run"]  # a fixture

TOKEN = "a-token-of-a-test"


@contextmanager
def running(
    *arguments: object, folder: Path, code: str = ""
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Run `carat serve` with arguments; yields its address and its process."""
    command = [sys.executable, "-c", code + "from carat.cli import main; main()", "serve"]
    log = folder / "log.txt"
    with log.open("wb") as opened:
        process = subprocess.Popen(
            [*command, *map(str, arguments), "--port", "0"],
            stderr=opened,
            env=os.environ | {"TMPDIR": str(folder), "CARAT_TOKEN": TOKEN},
        )
    try:
        end = time.monotonic() + 120
        while not (match := re.search(r" at (http://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end
            time.sleep(0.1)
        yield match[1], process
    finally:
        process.kill()
        process.wait()


def leftovers(folder: Path) -> list[Path]:
    end = time.monotonic() + 30
    while (found := list(folder.glob(f"{PREFIX}*"))) and time.monotonic() < end:
        time.sleep(0.1)
    return found


def test_client_answers_as_the_predictor(
    text_run: TrainedRun, trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    with running(text_run.folder, trained.folder, folder=tmp_path) as (url, process):
        client = carat.Client(url, TOKEN)
        texts = ["so glad", "such tears", "hate"]
        assert client.labels == text_run.card.labels
        for words in (0, 2):
            expected = carat.load(text_run, device="cpu").predict_text(texts, words=words)
            for found, prediction in zip(client.predict_text(texts, words=words), expected, strict=True):
                assert found.scores == pytest.approx(prediction.scores, abs=1e-6)
                assert (found.labels, found.words, found.text) == (
                    prediction.labels,
                    prediction.words,
                    prediction.text,
                )
        assert client.predict_text("so glad")[0].text == "so glad"
        assert client.predict_text([]) == client.predict_batch([]) == []
        other = carat.Client(url, TOKEN, run="tiny")
        samples = [{m: np.asarray(x) for m, x in store[i].features.items()} for i in range(3)]
        predictor = carat.load(trained, device="cpu")
        for found, prediction in zip(
            other.predict_batch(samples), predictor.predict_batch(samples), strict=True
        ):
            assert found.scores == pytest.approx(prediction.scores, abs=1e-6)
            assert found.attribution == prediction.attribution
        assert other.predict(samples[0]).labels == predictor.predict(samples[0]).labels
        check_errors(url, client, other)
        check_many_users(url, carat.load(text_run, device="cpu"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert leftovers(tmp_path) == []
    log = (tmp_path / "log.txt").read_text()
    assert "glad" not in log
    assert TOKEN not in log
    assert "Traceback" not in log


def check_errors(url: str, client: carat.Client, other: carat.Client) -> None:
    """What the server refuses is one line of an exception."""
    for call, message, status in (
        (lambda: client.predict_text(" "), "text 1 of 1 is empty", 422),
        (lambda: other.predict_text("so"), "tiny", 422),
        (lambda: carat.Client(url).runs(), "a token is needed", 401),
        (lambda: carat.Client(url, TOKEN, run="none").predict_text("so"), "no run 'none'", 404),
        (lambda: other.predict({"speech": np.ones((2, 2))}), "unknown modality 'speech'", 422),
        (lambda: carat.Client("http://127.0.0.1:1").runs(), "cannot be reached", 0),
    ):
        with pytest.raises(ServerError, match=message) as refused:
            call()
        assert refused.value.status == status
    with pytest.raises(DataError, match="must be numbers"):
        other.predict({"text": np.array([[print]])})
    with pytest.raises(carat.CaratError, match="has no run 'none'"):
        carat.Client(url, TOKEN, run="none").labels  # noqa: B018
    for address in ("127.0.0.1:8000", "ftp://x", "http://"):
        with pytest.raises(ConfigError, match="expected an address"):
            carat.Client(address)


def check_many_users(url: str, predictor: carat.Predictor) -> None:
    """Every user gets the answers to their own texts."""
    vocabulary = ["so", "glad", "tears", "hate", "fun", "now"]

    def use(user: int) -> None:
        random = np.random.default_rng(user)
        client = carat.Client(url, TOKEN)
        for _ in range(8):
            texts = [" ".join(random.choice(vocabulary, random.integers(1, 9))) for _ in range(3)]
            found, expected = client.predict_text(texts), predictor.predict_text(texts)
            assert [x.text for x in found] == texts
            for one, other in zip(found, expected, strict=True):
                assert one.scores == pytest.approx(other.scores, abs=1e-6)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))


FAKES = "from carat.serve import clip_worker, app; from tests.serve import workers; "
FAKES += "import pytest, pathlib; from tests.features.fakes import use_fakes; "
FAKES += "use_fakes(pytest.MonkeyPatch(), pathlib.Path.cwd()); "
FAKES += "app.make_app.__kwdefaults__['clip_worker'] = workers.with_fake_extractors; "


@pytest.mark.slow
def test_a_clip_is_scored_as_by_the_predictor(
    clip_run: tuple[Store, TrainedRun, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.features.fakes import use_fakes

    run = clip_run[1]
    clip = write_clip(tmp_path / "a clip.wav", (0.5, 1.5))
    steps: list[tuple[str, int, int | None]] = []
    with running(run.folder, folder=tmp_path, code=FAKES) as (url, process):
        client = carat.Client(url, TOKEN)
        assert client.runs()[0]["reads_clips"]
        found = client.predict_clip(clip, words=2, on_progress=lambda *step: steps.append(step))
        broken = tmp_path / "broken.wav"
        broken.write_bytes(b"RIFF....WAVE")
        with pytest.raises(ServerError, match=r"broken\.wav: ") as refused:
            client.predict_clip(broken)
        assert str(tmp_path) not in str(refused.value)
        (workspace,) = tmp_path.glob(f"{PREFIX}*")
        assert [path.name for path in workspace.iterdir()] == [".lock"]  # the client has deleted its clips
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert leftovers(tmp_path) == []
    use_fakes(monkeypatch, tmp_path)
    expected = carat.load(run, device="cpu").predict_clip(clip, words=2)
    assert steps
    assert (found.run, found.labels, found.transcript) == (expected.run, expected.labels, expected.transcript)
    assert list(found.notes) == list(dict.fromkeys(expected.notes))
    assert found.clip.info.audio == expected.clip.info.audio
    for one, other in zip(found.rows(), expected.rows(), strict=True):
        assert one.keys() == other.keys()
        scores = [name for name in one if name.startswith("score_")]
        assert {k: one[k] for k in one if k not in scores} == {k: other[k] for k in other if k not in scores}
        assert [one[k] for k in scores] == pytest.approx([other[k] for k in scores], abs=1e-6)
    assert found.segments[0].drops is not None


@pytest.mark.slow
def test_several_processes_share_jobs(text_run: TrainedRun, tmp_path: Path) -> None:
    with running(text_run.folder, "--workers", 2, folder=tmp_path) as (url, process):
        client = carat.Client(url, TOKEN)
        end = time.monotonic() + 120
        while True:
            try:
                assert client.predict_text("so glad")[0].labels == ["happy"]
                break
            except ServerError:
                assert time.monotonic() < end
                time.sleep(0.5)
        process.send_signal(signal.SIGKILL)  # its children end, too
    assert leftovers(tmp_path) == []
    end = time.monotonic() + 60
    while is_reachable(client):
        assert time.monotonic() < end
        time.sleep(0.5)


def is_reachable(client: carat.Client) -> bool:
    try:
        client.runs()
    except ServerError:
        return False
    return True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give at least one run, e.g. carat serve my-run"),
        (["none"], "none: "),
        (["none", "--host", "0.0.0.0"], "--host 0.0.0.0 lets other machines use the server"),
        (["none", "--max-jobs", "0"], "--max-jobs 0: expected a positive number"),
        (["none", "--token", "short"], "--token needs at least 16"),
        (["none", "--port", "99999"], "port"),
    ],
)
def test_wrong_commands_are_one_line(
    run: Callable[..., tuple[int, str, str]],
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    monkeypatch.delenv("CARAT_TOKEN", raising=False)
    monkeypatch.setattr(locating, "SHIPPED", tmp_path)  # otherwise a server without runs has one
    code, _, err = run("serve", *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


def test_a_port_in_use_is_one_line(run: Callable[..., tuple[int, str, str]], text_run: TrainedRun) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, _, err = run("serve", text_run.folder, "--port", taken.getsockname()[1])
    assert (code, len(err.splitlines())) == (2, 1)
    assert "cannot listen on 127.0.0.1:" in err
