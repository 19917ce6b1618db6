"""Decoder processes: how they are started, ended, and how their messages are read.

Each media file gets a process of its own, forked by a server that is started once; see
`carat.features.decoder_server`.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any

from carat.features import decoder
from carat.features.decoder_server import KILL, START
from carat.utils.errors import DataError

COMMAND = [sys.executable, "-P", "-m", "carat.features.decoder_server"]
STALL_SECONDS = 120.0
"""Seconds after which a decoder that sends nothing is ended."""
START_SECONDS = 60.0
"""Seconds that the server has to start a decoder."""
MAX_HEADER = 1 << 16
PIPE_BYTES = 1 << 20
"""Size of the pipe for pictures, where it can be set; the usual one takes 42 reads for one of 1280 × 720."""


class DecoderServer:
    """The process that forks decoders."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                COMMAND, stdin=other.fileno(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )

    @property
    def is_alive(self) -> bool:
        """Whether it can start decoders."""
        return self._process.poll() is None

    def start(self, requests: int, answers: int, state: int) -> None:
        """Fork a decoder.

        Args:
            requests: file descriptor from which it reads.
            answers: file descriptor to which it writes.
            state: file descriptor that gets its process id, and later its exit code.

        Raises:
            OSError: the server has ended.
        """
        socket.send_fds(self._socket, [START], [requests, answers, state])

    def kill(self, pid: int) -> None:
        """End a decoder that has not ended by itself."""
        with suppress(OSError):
            self._socket.send((KILL + b"%d" % pid).ljust(len(START)))

    def close(self) -> None:
        """End the server and its decoders."""
        self._socket.close()
        self._process.wait()


_lock = threading.Lock()
_servers: dict[int, DecoderServer] = {}
"""The server of this process by its id; a fork of it does not use that of its parent."""


def running_server() -> DecoderServer:
    """The server of this process, started when it is first needed."""
    with _lock:
        server = _servers.get(os.getpid())
        if server is not None and not server.is_alive:
            server.close()
        if server is None or not server.is_alive:
            server = _servers[os.getpid()] = DecoderServer()
        return server


@atexit.register
def end_server() -> None:
    """End the server of this process."""
    with _lock:
        server = _servers.pop(os.getpid(), None)
    if server is not None:
        server.close()


class Decoder:
    """A process that decodes one file.

    Args:
        file: media file.

    Raises:
        DataError: it cannot be started.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._pid: int | None = None
        requests, self._requests = _pipe()
        self._answers, answers = _pipe()
        self._state, state = _pipe()
        with suppress(AttributeError, OSError):  # not on every system, and not beyond the user's limit
            fcntl.fcntl(answers, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        try:
            with requests, answers, state:
                self._server = running_server()
                self._server.start(requests.fileno(), answers.fileno(), state.fileno())
            self._pid = self._read_state(START_SECONDS)
            if self._pid is None:
                raise DataError(f"{file}: no decoder can be started")
            limits = {"cpu_seconds": decoder.CPU_SECONDS, "memory": decoder.MEMORY}
            self.send({"file": str(file.absolute()), **limits})
        except OSError as error:
            self.close()
            raise DataError(f"{file}: no decoder can be started ({error})") from error
        except BaseException:
            self.close()
            raise

    def send(self, request: dict[str, Any]) -> None:
        """Send a request.

        Raises:
            DataError: the decoder has ended.
        """
        try:
            self._requests.write(json.dumps(request).encode() + b"\n")
        except BrokenPipeError:
            raise self._failure() from None

    def receive(self) -> tuple[dict[str, Any], bytearray]:
        """Wait for the next message: its header and its content.

        Raises:
            DataError: the decoder has ended, or does not go on.
        """
        line = bytearray()
        while not line.endswith(b"\n"):
            if len(line) > MAX_HEADER:
                raise self._failure()
            line += self._read(1)
        header = json.loads(line)
        return header, self._read(header["bytes"])

    def close(self) -> None:
        """End the process."""
        if self._pid is not None:
            self._server.kill(self._pid)
        for pipe in (self._requests, self._answers, self._state):
            pipe.close()

    def _read(self, length: int) -> bytearray:
        content = bytearray(length)
        rest = memoryview(content)
        while rest:
            read = 0
            if select.select([self._answers], [], [], STALL_SECONDS)[0]:
                read = self._answers.readinto(rest) or 0
            if not read:
                raise self._failure()
            rest = rest[read:]
        return content

    def _read_state(self, seconds: float) -> int | None:
        """Read the process id, then the exit code; None if it does not come in time."""
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._state], [], [], seconds)[0]:
                return None
            read = self._state.read(1)
            if not read:
                return None
            line += read
        return int(line)

    def _failure(self) -> DataError:
        """The error for a decoder that ended or does not answer."""
        problem = "the decoder crashes on it"
        if not select.select([self._state], [], [], 1)[0]:
            problem = "the decoder does not go on"
        elif self._read_state(1) in (-signal.SIGXCPU, -signal.SIGKILL):
            problem = "takes too much time or memory"
        return DataError(f"{self._file}: cannot be decoded ({problem})")


def _pipe() -> tuple[FileIO, FileIO]:
    """Both ends of a pipe: to read from, and to write to."""
    reader, writer = os.pipe()
    return FileIO(reader, "rb"), FileIO(writer, "wb")
