"""Pool of local worker processes; tasks of dead workers are retried."""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from carat.utils.parallel.child import Child, describe_exit, end_children, exit_with_parent, start_child
from carat.utils.parallel.tasks import (
    ATTEMPTS,
    OnReport,
    Prepare,
    TaskFunction,
    TaskResult,
    attempt,
    use_one_thread,
)

PATIENCE = 10.0
"""Seconds that an idle worker has to exit by itself."""
POLL = 1.0
"""Seconds between looks at whether workers live: what they forked may keep the pipe of a dead one open."""


@dataclass(eq=False)
class Worker(Child):
    """A worker process and the index of its current task."""

    index: int = -1

    def receive(self) -> tuple[str, Any]:
        """Read the next message.

        Raises:
            EOFError, ConnectionResetError: there is none, and the worker is dead.
        """
        if not self.pipe.poll():
            raise EOFError
        message: tuple[str, Any] = self.pipe.recv()
        return message


def run_tasks(
    prepare: Prepare,
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
    *,
    on_report: OnReport | None = None,
    fresh_processes: bool = False,
    attempts: int = ATTEMPTS,
) -> Iterator[TaskResult]:
    """Run tasks in worker processes, one core each; see `carat.utils.parallel.pool.run_tasks`.

    Closing the iterator kills the workers.
    """
    waiting = deque(range(len(tasks)))
    started = [0] * len(tasks)
    busy: list[Worker] = []
    idle: list[Worker] = []
    exiting: list[Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                index = waiting.popleft()
                started[index] += 1
                worker = idle.pop() if idle else _start(prepare, arguments)
                busy.append(worker)
                worker.index = index
                _send(worker, tasks[index])
            ready = wait([worker.pipe for worker in busy], POLL)
            for worker in list(busy):
                if worker.pipe not in ready and worker.process.is_alive():
                    continue
                try:
                    kind, content = worker.receive()
                except (EOFError, ConnectionResetError):
                    busy.remove(worker)
                    end_children([worker], PATIENCE)
                    if started[worker.index] < attempts:
                        waiting.appendleft(worker.index)
                        continue
                    times = f", {attempts} times" if attempts > 1 else ""
                    problem = f"its worker {describe_exit(worker.process.exitcode)}{times}"
                    yield TaskResult(worker.index, problem=problem, died=True)
                    continue
                if kind == "report":
                    _send(worker, on_report is not None and on_report(worker.index, content))
                    continue
                busy.remove(worker)
                if fresh_processes:
                    worker.pipe.close()
                    exiting.append(worker)
                else:
                    idle.append(worker)
                yield TaskResult(worker.index, *content)
        for worker in idle:
            worker.pipe.close()
        end_children([*idle, *exiting], PATIENCE)
    finally:
        end_children([*busy, *idle, *exiting])


def _start(prepare: Prepare, arguments: tuple[Any, ...]) -> Worker:
    child = start_child(_serve, prepare, arguments)
    return Worker(child.process, child.pipe)


def _send(worker: Worker, content: Any) -> None:
    with contextlib.suppress(
        BrokenPipeError, ConnectionResetError
    ):  # a dead worker is detected on the next read
        worker.pipe.send(content)


def _serve(prepare: Prepare, arguments: tuple[Any, ...], pipe: Connection) -> None:
    """Run tasks until the parent closes the pipe."""
    exit_with_parent()
    use_one_thread()

    def report(content: Any) -> bool:
        pipe.send(("report", content))
        return bool(pipe.recv())

    function: TaskFunction | None = None

    def perform(task: Any) -> Any:
        nonlocal function
        function = function or prepare(*arguments)
        return function(task, report)

    while True:
        try:
            task = pipe.recv()
        except EOFError:
            return
        try:
            pipe.send(("result", attempt(perform, task)))
        except BaseException:  # a signal, or a result that cannot be sent
            os._exit(1)  # at once: the end of a process waits for its threads, and the parent for the process
