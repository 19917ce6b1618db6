"""Launcher of a training run in several processes of this machine (ranks of `torch.distributed`)."""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from carat.training.distributed import Processes
from carat.training.signals import SIGNALS
from carat.utils.errors import CaratError, Interrupted, RunError
from carat.utils.parallel.child import Child, describe_exit, end_children, exit_with_parent, start_child
from carat.utils.parallel.tasks import one_line

PATIENCE = 3.0
"""Seconds that the other processes have to exit after one has ended."""


def launch(function: Callable[..., None], arguments: tuple[Any, ...], size: int, backend: str) -> None:
    """Call `function(*arguments, processes)` in `size` new processes, and wait for all of them.

    If one of them fails or is killed, the others are terminated; all exit with this process. Signals to this
    process are forwarded.

    Args:
        function: module-level function, so that other processes can import it.
        arguments: picklable arguments.
        size: number of processes.
        backend: backend of `torch.distributed`, "gloo" or "nccl".

    Raises:
        RunError: a process failed or was killed.
        Interrupted: the processes were interrupted by a signal.
    """
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # warns if a modality is absent from a whole rank
    threads = max(1, torch.get_num_threads() // size)
    with tempfile.TemporaryDirectory(prefix="carat-") as rendezvous:
        children: list[Child] = []
        try:
            for rank in range(size):
                processes = Processes(rank, size, rank, size)
                call = (function, arguments, processes, backend, rendezvous, threads)
                children.append(start_child(_enter, *call, name=f"process {rank} of {size}"))
            with _forwarded_signals(children) as signals:
                while running := [child for child in children if child.process.exitcode is None]:
                    wait([child.process.sentinel for child in running])
                    if any(child.process.exitcode for child in children):
                        end_children(children, PATIENCE)
        finally:
            end_children(children)
    _raise_problem(children, signals)


def _enter(
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    processes: Processes,
    backend: str,
    rendezvous: str,
    threads: int,
    pipe: Connection,
) -> None:
    """Join the process group and call the function, in a child process."""
    exit_with_parent(quiet=processes.rank > 0)
    torch.set_num_threads(threads)
    os.environ |= {
        "RANK": str(processes.rank),
        "LOCAL_RANK": str(processes.local_rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(processes.size),
        "LOCAL_WORLD_SIZE": str(processes.size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }
    if backend == "gloo" and Path("/sys/class/net/lo").exists():
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    try:
        if backend == "nccl":
            torch.cuda.set_device(processes.local_rank)
        dist.init_process_group(
            backend,
            init_method=f"file://{rendezvous}/rendezvous",
            rank=processes.rank,
            world_size=processes.size,
        )
        function(*arguments, processes)
        dist.destroy_process_group()
    except Interrupted as stop:
        os._exit(128 + stop.number)
    except CaratError as error:
        pipe.send(("refused", str(error)))
        os._exit(2)
    except Exception as error:  # the parent raises it, in one line
        pipe.send(("failed", one_line(error)))
        os._exit(1)


@contextmanager
def _forwarded_signals(children: list[Child]) -> Iterator[list[int]]:
    """Forward signals to the children; yields the list of received signals."""
    received: list[int] = []

    def forward(number: int, frame: Any) -> None:
        received.append(number)
        for child in children:
            if child.process.exitcode is None and child.process.pid is not None:
                os.kill(child.process.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _raise_problem(children: list[Child], signals: list[int]) -> None:
    """Raise the error that ended the children, unless all of them finished."""
    codes = [child.process.exitcode for child in children]
    signals = signals + [number for number in SIGNALS for code in codes if code == 128 + number]
    if signals and any(codes):
        raise Interrupted(signals[0])
    problems = {child.process.name: _read_problem(child) for child in children}
    for problem in problems.values():
        if problem and problem[0] == "refused":
            raise RunError(problem[1])
    for child in children:
        if child.process.exitcode and not problems[child.process.name]:
            exited = describe_exit(child.process.exitcode)
            raise RunError(
                f"{child.process.name} {exited}; rerun the same command to resume from the last checkpoint"
            )
    for name, problem in problems.items():
        if problem:
            raise RunError(f"{name} failed: {problem[1]}")


def _read_problem(child: Child) -> tuple[str, str] | None:
    try:
        problem: tuple[str, str] | None = child.pipe.recv() if child.pipe.poll() else None
    except (EOFError, OSError):
        return None
    return problem
