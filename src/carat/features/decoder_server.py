"""The process that forks a decoder for every media file; see `carat.features.decoder_process`.

Importing PyAV takes longer than decoding a clip of a few seconds, and a fork has it imported. Requests come
from the socket that is standard input: `start` with three pipes, or `kill` and a process id.
"""

from __future__ import annotations

import os
import select
import signal
import socket
from contextlib import suppress
from typing import Any

from carat.features import decoder

START = b"start".ljust(16)
KILL = b"kill"
"""Requests have 16 bytes; this one has the process id."""


def main() -> None:
    """Start decoders until the parent closes the socket, and end them then."""
    import av  # noqa: F401  for the decoders

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's
    signal.signal(signal.SIGCHLD, lambda *_: None)  # otherwise it would not wake up the loop
    ended, wake_up = os.pipe()
    os.set_blocking(wake_up, False)
    os.set_blocking(ended, False)
    signal.set_wakeup_fd(wake_up, warn_on_full_buffer=False)
    states: dict[int, int] = {}
    with socket.socket(fileno=os.dup(0)) as requests:
        watched: list[Any] = [requests, ended]
        while True:
            ready, _, _ = select.select(watched, [], [])
            if ended in ready:
                os.read(ended, 1 << 16)
                _report_ended(states)
            if requests in ready:
                request, pipes, _, _ = socket.recv_fds(requests, len(START), 3)
                if not request:
                    break
                if request == START:
                    _start(states, *pipes)
                elif (pid := int(request.removeprefix(KILL))) in states:
                    os.kill(pid, signal.SIGKILL)
    for pid in states:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _start(states: dict[int, int], requests: int, answers: int, state: int) -> None:
    """Fork a decoder; its process id, and later its exit code, are written to `state`."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.dup2(requests, 0)
            os.dup2(answers, 1)
            os.closerange(3, max(requests, answers, state, *states.values()) + 1)
            decoder.main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        finally:
            os._exit(code)
    os.close(requests)
    os.close(answers)
    states[pid] = state
    _write(state, pid)


def _report_ended(states: dict[int, int]) -> None:
    """Write the exit codes of decoders that ended."""
    for pid in list(states):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            state = states.pop(pid)
            _write(state, os.waitstatus_to_exitcode(status))
            os.close(state)


def _write(state: int, number: int) -> None:
    with suppress(BrokenPipeError):  # nobody wants to know
        os.write(state, b"%d\n" % number)


if __name__ == "__main__":
    main()
