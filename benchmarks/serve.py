"""Load on `carat serve`: texts a second, latency, memory, and whether every client gets its own answer.

    python -m benchmarks.serve RUN [--requests 20000] [--connections 64] > results/serve.md

Every request has a text of its own, which its answer must repeat; every 50th answer must have the scores that
`Predictor` gives. In one of the loads, every tenth request is one whose client hangs up before the answer.
The load comes from this process, on the same machine as the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import numpy as np

import carat
from benchmarks.measure import finish, machine, table

WORDS = ("so", "glad", "tears", "hate", "fun", "now", "i", "am", "not", "very", "day", "lost", "here", "and")
"""Words of the texts."""
START_SECONDS = 300
ANSWER_SECONDS = 90
"""Time after which an answer is lost; the server itself gives up earlier."""
CHECKED = 50
"""Of so many requests, the scores of one are compared."""
TOLERANCE = 1e-4
"""Largest difference between scores of the same text in batches of different sizes."""
STAGES = (1_000, 10_000, 20_000)
"""Numbers of requests after which memory is read."""


@dataclass
class Load:
    """What was measured of a server."""

    rate: float = 0.0
    """Answers a second."""
    median: float = 0.0
    """Milliseconds until the answer."""
    p99: float = 0.0
    requests: int = 0
    """Requests whose client waited."""
    mixed_up: int = 0
    """Answers with another text, or with the scores of another one."""
    refused: int = 0
    """Answers with an error."""
    lost: int = 0
    """Requests without an answer."""
    hung_up: int = 0
    """Requests whose client did not wait."""
    compared: int = 0
    """Answers whose scores were compared."""
    memory: dict[int, tuple[float, float]] = field(default_factory=dict)
    """By number of requests, resident memory of the server and its peak so far, in MB."""


@contextmanager
def server(run: Path, *options: str) -> Iterator[tuple[int, int]]:
    """Run a server; yields its port and process ID."""
    command = [sys.executable, "-m", "carat", "serve", str(run), "--port", "0", *options]
    with tempfile.TemporaryFile("w+") as log, subprocess.Popen(command, stderr=log) as process:
        try:
            end = time.monotonic() + START_SECONDS
            while True:
                log.seek(0)
                text = log.read()
                if match := re.search(r"127\.0\.0\.1:(\d+)", text):
                    break
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(text)
                time.sleep(0.1)
            yield int(match[1]), process.pid
        finally:
            process.terminate()


def memory_mb(process: int) -> tuple[float, float]:
    """Resident memory of a process and its peak so far, of Linux."""
    lines = [line.split() for line in Path(f"/proc/{process}/status").read_text().splitlines()]
    values = {line[0].rstrip(":"): line[1:] for line in lines if line}
    return int(values["VmRSS"][0]) / 1024, int(values["VmHWM"][0]) / 1024


def make_texts(count: int) -> list[str]:
    """Different texts of 3 to 20 words."""
    random = np.random.default_rng(0)
    return [f"{' '.join(random.choice(WORDS, random.integers(3, 20)))} {i}" for i in range(count)]


def encode(text: str) -> bytes:
    """The request for a text."""
    body = json.dumps({"texts": [text]}).encode()
    head = f"POST /v1/predict/text HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Content-Type: application/json\r\n\r\n".encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Head and body of an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]  # always there
    return head, await reader.readexactly(length)


async def hang_up(port: int, text: str) -> None:
    """Send a request, sometimes half of it, and close the connection without waiting for the answer."""
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    content = encode(text)
    writer.write(content if len(text) % 2 else content[: len(content) // 2])
    await writer.drain()
    await asyncio.sleep(0.001 * (len(text) % 5))
    writer.transport.abort()


async def use(
    port: int,
    texts: Iterator[tuple[int, str]],
    load: Load,
    latencies: list[float],
    expected: Mapping[str, Mapping[str, float]],
    quitters: int,
) -> None:
    """Send texts one after another over one connection, and count what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for number, text in texts:
        if quitters and number % quitters == 0:
            load.hung_up += 1
            await hang_up(port, text)
            continue
        load.requests += 1
        started = time.perf_counter()
        try:
            writer.write(encode(text))
            head, content = await asyncio.wait_for(read_answer(reader), ANSWER_SECONDS)
        except (OSError, EOFError, TimeoutError):
            load.lost += 1
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            continue
        latencies.append(time.perf_counter() - started)
        if not head.startswith(b"HTTP/1.1 200"):
            load.refused += 1
            continue
        prediction = json.loads(content)["predictions"][0]
        load.mixed_up += not is_of(prediction, text, expected)
        load.compared += text in expected
    writer.close()


def is_of(prediction: Mapping[str, Any], text: str, expected: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a prediction is that of a text."""
    scores = prediction["scores"]
    return prediction["text"] == text and all(
        abs(scores[label] - score) <= TOLERANCE for label, score in expected.get(text, {}).items()
    )


def measure(
    run: Path,
    requests: int,
    connections: int,
    expected: Mapping[str, Mapping[str, float]],
    *options: str,
    quitters: int = 0,
) -> Load:
    """Measure a server with options.

    Args:
        run: run to serve.
        requests: number of requests.
        connections: number of clients at the same time.
        expected: scores of some of the texts.
        options: options of `carat serve`.
        quitters: of so many requests, the client of one hangs up; 0 for none.
    """
    texts, load, latencies, seconds = make_texts(requests), Load(), list[float](), 0.0
    with server(run, *options) as (port, process):

        async def put(start: int, stop: int) -> None:
            shared = enumerate(texts[start:stop], start)
            users = (use(port, shared, load, latencies, expected, quitters) for _ in range(connections))
            await asyncio.gather(*users)

        stages = [*(stage for stage in STAGES if stage < requests), requests]
        for start, stop in zip([0, *stages], stages, strict=False):
            started = time.perf_counter()
            asyncio.run(put(start, stop))
            seconds += time.perf_counter() - started
            load.memory[stop] = memory_mb(process)
    load.rate = len(latencies) / seconds
    load.median, load.p99 = (1000 * float(np.quantile(latencies, q)) for q in (0.5, 0.99))
    return load


def main(
    run: Path,
    /,
    *,
    requests: int = 20_000,
    connections: int = 64,
    unbatched: Annotated[int, cyclopts.Parameter(help="Requests of the load without batching.")] = 2_000,
) -> None:
    """Measure and print."""
    texts = make_texts(requests)[1::CHECKED]
    predictions = carat.load(run, device="cpu").predict_text(texts)
    expected = {text: x.scores for text, x in zip(texts, predictions, strict=True)}
    loads = {
        "dynamic batching": measure(run, requests, connections, expected),
        "the same, clients hang up": measure(run, requests, connections, expected, quitters=10),
        "one at a time": measure(run, min(unbatched, requests), connections, expected, "--max-batch", "1"),
    }
    header = ["", "requests/s", "median ms", "p99 ms", "answers", "mixed up", "refused", "lost", "hung up"]
    rows = [
        [
            *(name, f"{x.rate:.0f}", f"{x.median:.0f}", f"{x.p99:.0f}"),
            *(x.requests - x.lost, x.mixed_up, x.refused, x.lost, x.hung_up),
        ]
        for name, x in loads.items()
    ]
    memory = [
        [name, stage, f"{now:.0f}", f"{peak:.0f}"]
        for name, x in loads.items()
        for stage, (now, peak) in x.memory.items()
    ]
    ratio = loads["dynamic batching"].rate / loads["one at a time"].rate
    where = machine()
    compared = sum(x.compared for x in loads.values())
    text = (
        f"# Load on the server\n\n`python -m benchmarks.serve {run.name} --requests {requests} "
        f"--connections {connections}`, commit {where['commit']}, {where['processor']}, "
        f"{where['threads']} threads; the load comes from the same machine.\n\n{table(header, rows)}\n\n"
        f"Dynamic batching answers {ratio:.1f} times as many requests a second. Of the answers, {compared} "
        "were also compared with the scores of `Predictor`; an answer with another text or other scores is "
        "mixed up.\n\n"
        f"{table(['', 'after requests', 'MB resident', 'MB at most so far'], memory)}"
    )
    values = {"requests": requests, "connections": connections, "ratio": ratio}
    finish(text, values | {name: vars(load) for name, load in loads.items()})


if __name__ == "__main__":
    cyclopts.run(main)
