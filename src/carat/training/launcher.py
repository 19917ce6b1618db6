"""A function in several processes of this machine, which know of one another."""

from __future__ import annotations

import multiprocessing
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
from carat.utils.parallel.child import exit_with_parent


def launch(function: Callable[..., None], arguments: tuple[Any, ...], size: int, backend: str) -> None:
    """Call `function(*arguments, processes)` in so many new processes, and wait for all of them.

    When one of them fails or is killed, the others are ended; when this process ends, however it does, they
    end too. Signals to this process are passed on to them.

    Args:
        function: of a module, so that it can be found there.
        arguments: what can be pickled.
        size: how many.
        backend: of `torch.distributed`, "gloo" or "nccl".

    Raises:
        RunError: a process failed or was killed.
        Interrupted: a signal ended them.
    """
    context = multiprocessing.get_context("spawn")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # a modality may be absent from a whole share
    threads = max(1, torch.get_num_threads() // size)
    with tempfile.TemporaryDirectory(prefix="carat-") as meeting:
        children, pipes = [], []
        for rank in range(size):
            ours, theirs = context.Pipe(duplex=False)
            call = (function, arguments, Processes(rank, size, rank, size), backend, meeting, threads, theirs)
            child = context.Process(target=_enter, args=call, name=f"process {rank} of {size}")
            child.start()
            theirs.close()
            children.append(child)
            pipes.append(ours)
        try:
            with _passing_on(children) as signals:
                while running := [child for child in children if child.exitcode is None]:
                    wait([child.sentinel for child in running])
                    if any(child.exitcode for child in children):
                        _end(children)
        finally:
            for child in children:
                if child.is_alive():
                    child.kill()
                child.join()
    _judge(children, pipes, signals)


def _enter(
    function: Callable[..., None],
    arguments: tuple[Any, ...],
    processes: Processes,
    backend: str,
    meeting: str,
    threads: int,
    pipe: Connection,
) -> None:
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
            backend, init_method=f"file://{meeting}/meeting", rank=processes.rank, world_size=processes.size
        )
        function(*arguments, processes)
        dist.destroy_process_group()
    except Interrupted as stop:
        os._exit(128 + stop.number)
    except CaratError as error:
        pipe.send(("refused", str(error)))
        os._exit(2)
    except Exception as error:  # said by the parent, in one line
        pipe.send(("failed", f"{type(error).__name__} {' '.join(str(error).split())[:300]}"))
        os._exit(1)


@contextmanager
def _passing_on(children: list[Any]) -> Iterator[list[int]]:
    """Passes signals on to processes, and lists them."""
    passed: list[int] = []

    def pass_on(number: int, frame: Any) -> None:
        passed.append(number)
        for child in children:
            if child.exitcode is None:
                os.kill(child.pid, number)

    if threading.current_thread() is not threading.main_thread():
        yield passed
        return
    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(children: list[Any], patience: float = 3.0) -> None:
    """Let the others notice by themselves, then end them."""
    for child in children:
        child.join(patience)
        if child.exitcode is None:
            child.kill()
            child.join()


def _judge(children: list[Any], pipes: list[Connection], signals: list[int]) -> None:
    signals = signals + [number for number in SIGNALS for child in children if child.exitcode == 128 + number]
    if signals and any(child.exitcode for child in children):
        raise Interrupted(signals[0])
    said = {}
    for child, pipe in zip(children, pipes, strict=True):
        try:
            said[child.name] = pipe.recv() if pipe.poll() else None
        except EOFError:
            said[child.name] = None
    for found in said.values():
        if found and found[0] == "refused":
            raise RunError(found[1])
    for child in children:
        if child.exitcode and not said[child.name]:
            how = f"was killed by signal {-child.exitcode}" if child.exitcode < 0 else "ended unexpectedly"
            raise RunError(f"{child.name} {how}; the same command goes on from the last saved state")
    for name, found in said.items():
        if found:
            raise RunError(f"{name} failed: {found[1]}")
