"""Load on `carat serve`: texts a second and latency, with and without dynamic batching, and memory.

python -m benchmarks.serve RUN [--requests 20000] [--connections 64]

Every request has a text of its own, and its answer is compared with it. The load comes from this process, on
the same machine as the server.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cyclopts
import numpy as np

from benchmarks.measure import finish, machine, table

WORDS = ("so", "glad", "tears", "hate", "fun", "now", "i", "am", "not", "very", "day", "lost", "here", "and")
"""Words of the texts."""
START_SECONDS = 300


@dataclass(frozen=True)
class Load:
    """What was measured of a server."""

    rate: float
    """Requests a second."""
    median: float
    """Milliseconds until the answer."""
    p99: float
    wrong: int
    """Answers that are not those of their request, or no success."""
    memory_start: float
    """Resident memory of the server in MB after the first tenth of the requests."""
    memory_end: float


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


def resident_mb(process: int) -> float:
    """Resident memory of a process, of Linux."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024  # type: ignore[index]  # always there


def make_texts(count: int) -> list[str]:
    """Different texts of 3 to 20 words."""
    random = np.random.default_rng(0)
    return [f"{' '.join(random.choice(WORDS, random.integers(3, 20)))} {i}" for i in range(count)]


async def use(port: int, texts: Iterator[str], latencies: list[float]) -> int:
    """Send texts one after another over one connection; returns the number of wrong answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wrong = 0
    for text in texts:
        body = json.dumps({"texts": [text]}).encode()
        head = f"POST /v1/predict/text HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
        started = time.perf_counter()
        writer.write(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", answer)[1])  # type: ignore[index]  # always there
        content = await reader.readexactly(length)
        latencies.append(time.perf_counter() - started)
        is_right = (
            answer.startswith(b"HTTP/1.1 200") and json.loads(content)["predictions"][0]["text"] == text
        )
        wrong += not is_right
    writer.close()
    return wrong


async def put_load(port: int, texts: list[str], connections: int) -> tuple[float, list[float], int]:
    """Send texts over several connections; returns seconds, latencies, and the number of wrong answers."""
    shared, latencies = iter(texts), list[float]()
    started = time.perf_counter()
    wrong = await asyncio.gather(*(use(port, shared, latencies) for _ in range(connections)))
    return time.perf_counter() - started, latencies, sum(wrong)


def measure(run: Path, requests: int, connections: int, *options: str) -> Load:
    """Measure a server with options."""
    texts = make_texts(requests)
    first = max(requests // 10, 1)
    with server(run, *options) as (port, process):
        asyncio.run(put_load(port, texts[:first], connections))
        before = resident_mb(process)
        seconds, latencies, wrong = asyncio.run(put_load(port, texts, connections))
        after = resident_mb(process)
    median, p99 = (1000 * float(np.quantile(latencies, q)) for q in (0.5, 0.99))
    return Load(requests / seconds, median, p99, wrong, before, after)


def main(run: Path, /, *, requests: int = 20_000, connections: int = 64) -> None:
    """Measure and print."""
    loads = {
        "dynamic batching": measure(run, requests, connections),
        "one at a time": measure(run, requests, connections, "--max-batch", "1"),
    }
    rows = [
        [
            name,
            f"{x.rate:.0f}",
            f"{x.median:.0f}",
            f"{x.p99:.0f}",
            x.wrong,
            f"{x.memory_start:.0f}",
            f"{x.memory_end:.0f}",
        ]
        for name, x in loads.items()
    ]
    header = ["", "requests/s", "median ms", "p99 ms", "wrong", "MB before", "MB after"]
    values = {"requests": requests, "connections": connections, "machine": machine()}
    finish(table(header, rows), values | {name: vars(load) for name, load in loads.items()})


if __name__ == "__main__":
    cyclopts.run(main)
