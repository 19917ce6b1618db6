"""The pool of worker processes: one call for every engine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

from carat.utils.parallel import local
from carat.utils.parallel.tasks import ATTEMPTS, Engine, OnReport, Prepare, TaskResult


def run_tasks(
    prepare: Prepare,
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
    *,
    engine: Engine = "local",
    address: str | None = None,
    on_report: OnReport | None = None,
    fresh_processes: bool = False,
    attempts: int = ATTEMPTS,
) -> Generator[TaskResult, None, None]:
    """Perform tasks in worker processes, one core each.

    The workers end with this process, however it ends. To end them earlier, close the iterator
    (`contextlib.closing`).

    Args:
        prepare: called as `prepare(*arguments)` in every worker; returns the function that performs a task.
        arguments: picklable.
        tasks: picklable; each is looked up when there is a worker for it.
        workers: number of tasks at a time.
        engine: where the workers run.
        address: of a Ray cluster; None starts one on this machine.
        on_report: receives what tasks report and decides whether they stop. On Ray the decision reaches a
            task with its next report.
        fresh_processes: a process of its own for every task, so that its peak memory can be measured.
        attempts: how often a task is started whose worker dies, on this machine.

    Yields:
        The outcome of each task, in the order in which they finish.

    Raises:
        RunError: Ray is not installed, or cannot be reached.
    """
    if engine == "local":
        yield from local.run_tasks(
            prepare,
            arguments,
            tasks,
            workers,
            on_report=on_report,
            fresh_processes=fresh_processes,
            attempts=attempts,
        )
        return
    from carat.utils.parallel import ray

    with ray.cluster(address, workers) as connected:
        if on_report is None and not fresh_processes:
            yield from ray.map_tasks(connected, prepare, arguments, tasks, workers)
        else:
            yield from ray.run_tasks(connected, prepare, arguments, tasks, workers, on_report)
