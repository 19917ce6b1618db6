"""Tasks in processes of this machine; the task of one that dies is given to another."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from carat.utils.errors import CaratError
from carat.utils.parallel.child import exit_with_parent
from carat.utils.parallel.tasks import ATTEMPTS, TaskFunction, TaskResult, one_line


@dataclass
class Worker:
    """A process, and the task that it has."""

    process: Any
    pipe: Connection
    index: int


def run_tasks(
    prepare: Callable[..., TaskFunction],
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
    hear: Callable[[int, Any], bool] = lambda index, said: False,
) -> Iterator[TaskResult]:
    """Do tasks in several processes at once, one core each.

    When this process ends, however it does, its workers end too.

    Args:
        prepare: called with `arguments` once in every worker; what it returns does one task after another.
            A function of a module, so that it can be found there.
        arguments: what can be pickled.
        tasks: what can be pickled, asked for one by one when there is a worker for it.
        workers: how many at once.
        hear: called with the place of a task and what it reports; answers whether the task is to stop.

    Yields:
        What became of each task, in the order in which they end.
    """
    waiting = deque(range(len(tasks)))
    begun = [0] * len(tasks)
    busy: list[Worker] = []
    idle: list[Worker] = []
    try:
        while waiting or busy:
            while waiting and len(busy) < workers:
                index = waiting.popleft()
                begun[index] += 1
                worker = idle.pop() if idle else _start(prepare, arguments)
                worker.index = index
                worker.pipe.send(tasks[index])
                busy.append(worker)
            ready = wait([worker.pipe for worker in busy])
            for worker in [worker for worker in busy if worker.pipe in ready]:
                try:
                    kind, content = worker.pipe.recv()
                except (EOFError, ConnectionResetError):
                    busy.remove(worker)
                    worker.process.join()
                    if begun[worker.index] < ATTEMPTS:
                        waiting.appendleft(worker.index)
                    else:
                        how = f"its worker died {ATTEMPTS} times (exit code {worker.process.exitcode})"
                        yield TaskResult(worker.index, problem=how)
                    continue
                if kind == "said":
                    worker.pipe.send(hear(worker.index, content))
                    continue
                busy.remove(worker)
                idle.append(worker)
                result, problem = (content, "") if kind == "done" else (None, content)
                yield TaskResult(worker.index, result, problem)
    finally:
        for worker in busy + idle:
            worker.process.kill()
            worker.process.join()


def _start(prepare: Callable[..., TaskFunction], arguments: tuple[Any, ...]) -> Worker:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(prepare, arguments, theirs))
    process.start()
    theirs.close()
    return Worker(process, ours, -1)


def _serve(prepare: Callable[..., TaskFunction], arguments: tuple[Any, ...], pipe: Connection) -> None:
    import torch

    exit_with_parent()
    torch.set_num_threads(1)

    def tell(said: Any) -> bool:
        pipe.send(("said", said))
        return bool(pipe.recv())

    work: TaskFunction | None = None
    while True:
        task = pipe.recv()
        try:
            work = work or prepare(*arguments)
            answer = ("done", work(task, tell))
        except CaratError as error:
            answer = ("failed", str(error))
        except Exception as error:  # one task must not end the others
            answer = ("failed", one_line(error))
        pipe.send(answer)
