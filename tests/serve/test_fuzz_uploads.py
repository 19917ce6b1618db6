"""Mutated uploads to `carat serve` as a process: no error of its own, no crash, and nothing is left behind.

`CARAT_FUZZ=10000` sets their number. Every upload is derived from its number alone; one that fails is kept.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from carat.data.store import Store
from carat.training.train import TrainedRun
from tests.features.files import corners, tone, write_media
from tests.inference.clips.test_scoring import clip_run, write_clip
from tests.serve.test_server import FAKES, TOKEN, running

__all__ = ["clip_run"]  # a fixture

COUNT = int(os.environ.get("CARAT_FUZZ", "300"))
KINDS = (*("features", "json") * 4, "features", "clip")
"""Kinds of uploads, in turn."""
SECONDS = 300
"""Time that an answer and a job may take."""
ODD = (
    None,
    True,
    -1,
    2**70,
    1.5,
    float("inf"),
    "",
    " ",
    "x" * 9000,
    "\ud800",
    "\0",
    [],
    {},
    [[]],
    "other-run",
)
REQUEST: dict[str, Any] = {
    "texts": ["so glad", "such tears", "hate"],
    "run": "text",
    "words": 3,
    "conversations": ["", "a", "a"],
    "speakers": ["Ann", "Ben", "Ann"],
}
CLIP_FIELDS = {"segments": "auto", "words": "3", "run": "run"}
Random = np.random.Generator


@dataclass(frozen=True)
class Upload:
    """A request with a body."""

    path: str
    kind: str
    """Media type."""
    body: bytes


def mutate_bytes(content: bytes, random: Random) -> bytes:
    """Change some bytes, insert or repeat some, or cut off the end; rarely nothing."""
    out = bytearray(content)
    for _ in range(random.integers(0, 5)):
        at = int(random.integers(len(out) + 1) * random.choice([1, 1, 0.02]))  # headers are at the start
        length = int(random.choice([1, 2, 4, 8, 64]))
        change = random.integers(6)
        if change == 0:
            out[at : at + length] = random.bytes(length)
        elif change == 1:
            out[at:at] = random.bytes(length)
        elif change == 2:
            del out[at : at + length]
        elif change == 3:
            out[at : at + length] = random.choice([b"\x00", b"\xff", b"\x7f"]) * length
        elif change == 4:
            out[at:at] = out[at : at + length * 16]
        elif random.random() < 0.5:
            del out[at:]
    return bytes(out)


def mutate_value(value: Any, random: Random) -> Any:
    """Replace, drop, repeat or add parts of a JSON value."""
    if random.random() < 0.15:
        return ODD[random.integers(len(ODD))]
    if isinstance(value, dict):
        kept = {k: mutate_value(v, random) if random.random() < 0.3 else v for k, v in value.items()}
        for key in list(kept):
            if random.random() < 0.15:
                del kept[key]
        if random.random() < 0.1:
            kept[str(ODD[random.integers(len(ODD))])] = None
        return kept
    if isinstance(value, list) and value:
        changed = [mutate_value(item, random) if random.random() < 0.3 else item for item in value]
        return changed[: random.integers(1, len(changed) + 1)] if random.random() < 0.2 else changed
    return value


def mutate_archive(content: bytes, random: Random) -> bytes:
    """Change the arrays and names of a zip archive, whose checksums then are right."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            array = source.read(name)
            if random.random() < 0.5:
                array = mutate_bytes(array[:128], random) + mutate_bytes(array[128:], random)
            if random.random() < 0.1:
                name = mutate_bytes(name.encode(), random).decode("latin-1") or "x"
            target.writestr(name, array, int(random.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])))
    return out.getvalue()


def odd_archive(random: Random) -> bytes:
    """Arrays of other types and shapes than features have."""
    out = io.BytesIO()
    arrays = {}
    for name in random.choice(["text", "audio", "vision", "a/text", "a/b/text", "", "..", "x\n"], 3):
        shape = tuple(random.integers(0, 7, random.integers(0, 4)))
        kind = str(random.choice(["f2", "f4", "f8", "i1", "u8", "?", "c8", "U3", "S3", "M8[s]", "f4,i4"]))
        arrays[str(name)] = np.zeros(shape, kind)
        if kind in ("f4", "f8") and random.random() < 0.5:
            arrays[str(name)] += random.choice([np.nan, np.inf, 3e38])
    with np.errstate(over="ignore"):
        np.savez(out, **arrays)  # type: ignore[arg-type]  # numpy's stub is wrong
    return out.getvalue()


def make_form(name: str, content: bytes, fields: Mapping[str, Any]) -> bytes:
    parts = [
        f'--B\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode(errors="replace")
        for key, value in fields.items()
    ]
    head = f'--B\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
    return b"".join([*parts, head.encode(errors="replace"), content, b"\r\n--B--\r\n"])


def make_upload(number: int, archive: bytes, clips: Mapping[str, bytes]) -> Upload:
    """Derive an upload from its number."""
    random = np.random.default_rng(number)
    kind = KINDS[number % len(KINDS)]
    if kind == "json":
        body = json.dumps(mutate_value(REQUEST, random)).encode()
        if random.random() < 0.4:
            body = mutate_bytes(body, random)
        return Upload("/v1/predict/text", "application/json", body)
    if kind == "features":
        make: Callable[[], bytes] = (
            lambda: mutate_bytes(archive, random),
            lambda: mutate_archive(archive, random),
            lambda: odd_archive(random),
        )[random.integers(3)]
        body = make_form("f.npz", make(), {"run": "tiny", "raw": random.choice(["true", "false"])})
    else:
        name = str(random.choice(list(clips)))
        fields = mutate_value(CLIP_FIELDS, random) if random.random() < 0.2 else CLIP_FIELDS
        body = make_form(name, mutate_bytes(clips[name], random), fields if isinstance(fields, dict) else {})
    if random.random() < 0.05:
        body = mutate_bytes(body, random)
    return Upload(f"/v1/predict/{kind}", "multipart/form-data; boundary=B", body)


def send(url: str, method: str, path: str, upload: Upload | None = None) -> tuple[int, bytes]:
    """Send a request over a connection of its own; returns status and body."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=SECONDS)
    headers = {"Authorization": f"Bearer {TOKEN}"} | ({"Content-Type": upload.kind} if upload else {})
    try:
        connection.request(method, path, upload.body if upload else None, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def follow(url: str, id: str) -> str:
    """Wait for the end of a job, and delete it; returns how it ended, and for a fault, why."""
    end = time.monotonic() + SECONDS
    while (job := json.loads(send(url, "GET", f"/v1/jobs/{id}")[1]))["state"] in ("queued", "running"):
        if time.monotonic() > end:
            return f"fault: {job}"
        time.sleep(0.02)
    if job["state"] == "finished":
        status, _ = send(url, "GET", f"/v1/jobs/{id}/result/json")
        assert status == 200
    assert send(url, "DELETE", f"/v1/jobs/{id}")[0] == 204
    reason = str(job["error"])
    is_fault = "report this fault" in reason or "the process that" in reason or "\n" in reason
    return f"fault: {reason}" if is_fault else f"clip {job['state']}"


def outcome_of(url: str, upload: Upload) -> str:
    """Send an upload; returns what became of it: a status, the end of a job, or a fault."""
    status, content = send(url, "POST", upload.path, upload)
    if status >= 500 or status == 429:
        return f"fault: {status} {content!r}"
    if status == 202:
        return follow(url, json.loads(content)["id"])
    if status != 200:
        (message,) = json.loads(content).values()
        if not message or "\n" in message or len(message) > 400:
            return f"fault: {message}"
    return f"{upload.path.rpartition('/')[2]} {status}"


@pytest.fixture
def archive(store: Store) -> bytes:
    out = io.BytesIO()
    arrays = {f"{i}/{m}": np.asarray(x) for i in range(2) for m, x in store[i].features.items()}
    np.savez(out, **arrays)  # type: ignore[arg-type]  # numpy's stub is wrong
    return out.getvalue()


@pytest.mark.slow
def test_mutated_uploads(
    clip_run: tuple[Store, TrainedRun, Path],
    text_run: TrainedRun,
    trained: TrainedRun,
    archive: bytes,
    tmp_path: Path,
) -> None:
    pictures = [(i / 10, corners()) for i in range(8)]
    clips = {
        path.name: path.read_bytes()
        for path in (
            write_clip(tmp_path / "a.wav", (0.1, 0.7), seconds=0.8),
            write_media(tmp_path / "b.mp4", sound=tone(0.8, 16_000), pictures=pictures),
        )
    }
    folder = tmp_path / "server"
    folder.mkdir()
    runs = [run.folder for run in (text_run, trained, clip_run[1])]
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    with running(*runs, "--job-seconds", SECONDS, folder=folder, code=FAKES) as (url, process):
        for number in range(COUNT):
            upload = make_upload(number, archive, clips)
            outcome = outcome_of(url, upload)
            assert process.poll() is None, f"upload {number} ended the server"
            if outcome.startswith("fault"):
                faults.append(f"upload {number} to {upload.path}: {outcome}")
                (tmp_path / f"upload-{number}").write_bytes(upload.body)
            else:
                outcomes[outcome] += 1
        assert faults == []
        assert send(url, "GET", "/v1/health")[0] == 200
        (workspace,) = folder.glob("carat-serve-*")
        assert [path.name for path in workspace.iterdir()] == [".lock"]
        process.terminate()
        assert process.wait(60) == 0
    print(dict(outcomes))
    assert [path.name for path in folder.iterdir()] == ["log.txt"]
    assert "Traceback" not in (folder / "log.txt").read_text()
    expected = {
        "features 200",
        "features 422",
        "text 200",
        "text 400",
        "text 422",
        "clip finished",
        "clip failed",
    }
    assert expected <= set(outcomes)
