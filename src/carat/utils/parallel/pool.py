"""Pool of worker processes, local or on Ray."""

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
    """Run tasks in worker processes, one core each.

    Workers exit with this process. To terminate them earlier, close the iterator (`contextlib.closing`).

    Args:
        prepare: called as `prepare(*arguments)` in every worker; returns the function that runs a task.
        arguments: picklable arguments of `prepare`.
        tasks: picklable tasks; each is looked up when a worker is free.
        workers: number of parallel tasks.
        engine: local processes or Ray.
        address: address of a Ray cluster; None starts one on this machine.
        on_report: receives the reports of tasks and decides whether they stop. On Ray a task receives the
            decision with its next report.
        fresh_processes: use a new process for every task, so that its peak memory can be measured.
        attempts: number of attempts if the worker of a task dies; local processes only.

    Yields:
        The result of each task, in order of completion.

    Raises:
        RunError: Ray is not installed or not reachable.
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
