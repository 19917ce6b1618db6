"""Pool of workers on a Ray cluster, or on a local Ray instance."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from carat.utils.errors import RunError
from carat.utils.logging import hide_progress
from carat.utils.parallel.tasks import (
    ATTEMPTS,
    OnReport,
    Prepare,
    TaskFunction,
    TaskResult,
    attempt,
    one_line,
    use_one_thread,
)

POLL = 0.2
"""Interval in seconds for collecting reports."""


@contextmanager
def cluster(address: str | None, workers: int) -> Iterator[Any]:
    """Connect to a Ray cluster, or start one on this machine with `workers` cores if there is no address.

    Raises:
        RunError: Ray is not installed or not reachable.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors are also raised
    try:
        import ray
    except ImportError as error:
        raise RunError("--engine ray needs Ray: pip install 'carat-emotion[ray]'") from error
    _check_reachable(address)
    owned = not ray.is_initialized()
    if owned:
        try:
            ray.init(
                address=address or "local",
                num_cpus=None if address else workers,
                include_dashboard=None if address else False,
                logging_level=logging.ERROR,
                log_to_driver=False,
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise RunError(f"no Ray cluster at {address or 'this machine'}: {one_line(error)}") from error
    try:
        yield ray
    finally:
        if owned:
            ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Fail immediately if nothing listens at the address, where Ray would wait for minutes."""
    host, _, port = (address or "").rpartition("/")[2].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise RunError(f"no Ray cluster at {address}: {error.strerror or error}") from error


def run_tasks(
    ray: Any,
    prepare: Prepare,
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
    on_report: OnReport | None = None,
) -> Iterator[TaskResult]:
    """Run tasks as Ray remote functions; see `carat.utils.parallel.pool.run_tasks`.

    `prepare` is called for every task.

    Args:
        ray: connected module, see `cluster`.
        prepare, arguments, tasks, workers, on_report: see `carat.utils.parallel.pool.run_tasks`.
    """
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    perform = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_perform)
    waiting = list(range(len(tasks)))[::-1]
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            index = waiting.pop()
            running[perform.remote(prepare, arguments, tasks[index], index, mailbox)] = index
        finished, _ = ray.wait(list(running), timeout=POLL)
        for index, content in ray.get(mailbox.take.remote()):
            if on_report is not None and on_report(index, content):
                ray.get(mailbox.stop.remote(index))
        for future in finished:
            index = running.pop(future)
            try:
                outcome = TaskResult(index, *ray.get(future))
            except ray.exceptions.RayError as error:
                outcome = TaskResult(index, problem=one_line(error), died=True)
            yield outcome


def _perform(
    prepare: Prepare, arguments: tuple[Any, ...], task: Any, index: int, mailbox: Any
) -> tuple[Any, str, bool]:
    import ray

    hide_progress()
    use_one_thread()

    def report(content: Any) -> bool:
        return bool(ray.get(mailbox.put.remote(index, content)))

    return attempt(lambda: prepare(*arguments)(task, report))


class Mailbox:
    """Actor that collects reports and passes the decision to stop to tasks."""

    def __init__(self) -> None:
        self.reports: list[tuple[int, Any]] = []
        self.stopped: set[int] = set()

    def put(self, index: int, content: Any) -> bool:
        """Add a report; return whether its task should stop."""
        self.reports.append((index, content))
        return index in self.stopped

    def take(self) -> list[tuple[int, Any]]:
        """Return and remove all collected reports."""
        reports, self.reports = self.reports, []
        return reports

    def stop(self, index: int) -> None:
        """Stop a task at its next report."""
        self.stopped.add(index)


def map_tasks(
    ray: Any,
    prepare: Prepare,
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
) -> Iterator[TaskResult]:
    """Run tasks through Ray Data: `prepare` is called once per worker, and reports are discarded."""
    from ray import data

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not tasks:
        return
    items = [{"index": index, "task": pickle.dumps(task)} for index, task in enumerate(tasks)]
    outcomes = data.from_items(items, override_num_blocks=len(items)).map_batches(
        MapWorker,
        fn_constructor_args=(prepare, arguments),
        batch_size=1,
        compute=data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(items))),
        num_cpus=1,
    )
    try:
        for row in outcomes.iter_rows():
            yield TaskResult(int(row["index"]), *pickle.loads(row["outcome"]))
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray: {one_line(error)}") from error


class MapWorker:
    """Ray Data actor that runs tasks."""

    def __init__(self, prepare: Prepare, arguments: tuple[Any, ...]) -> None:
        hide_progress()
        use_one_thread()
        self.prepare, self.arguments = prepare, arguments
        self.function: TaskFunction | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        outcome = attempt(self._perform, pickle.loads(batch["task"][0]))
        return {"index": batch["index"], "outcome": [pickle.dumps(outcome)]}

    def _perform(self, task: Any) -> Any:
        self.function = self.function or self.prepare(*self.arguments)
        return self.function(task, lambda content: False)
