"""Tasks on a Ray cluster, or on a Ray of this machine's own."""

from __future__ import annotations

import logging
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from carat.utils.errors import CaratError, RunError
from carat.utils.logging import hide_progress
from carat.utils.parallel.tasks import ATTEMPTS, TaskFunction, TaskResult, one_line

POLL = 0.2
"""Seconds between looks at what tasks report."""


@contextmanager
def cluster(address: str | None, workers: int) -> Iterator[Any]:
    """Ray, connected to a cluster, or started here with so many cores when there is no address.

    Raises:
        RunError: Ray is not installed, or nothing answers at the address.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is raised, too
    try:
        import ray
    except ImportError as error:
        raise RunError("--engine ray needs Ray: pip install 'carat[ray]'") from error
    _knock(address)
    mine = not ray.is_initialized()
    if mine:
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
        if mine:
            ray.shutdown()


def _knock(address: str | None) -> None:
    """Ray itself would wait for minutes."""
    host, _, port = (address or "").rpartition("/")[2].rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise RunError(f"no Ray cluster at {address}: {error.strerror or error}") from error


def run_tasks(
    ray: Any,
    prepare: Callable[..., TaskFunction],
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
    hear: Callable[[int, Any], bool] = lambda index, said: False,
) -> Iterator[TaskResult]:
    """As `carat.utils.parallel.local.run_tasks`, with tasks wherever the cluster has room for them.

    What a task is told comes one report later.

    Args:
        ray: connected, see `cluster`.
        prepare: called with `arguments` before every task.
        arguments, tasks, workers, hear: as there.
    """
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    do = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1)(_do)
    waiting = list(range(len(tasks)))[::-1]
    running: dict[Any, int] = {}
    while waiting or running:
        while waiting and len(running) < workers:
            index = waiting.pop()
            running[do.remote(prepare, arguments, tasks[index], index, mailbox)] = index
        finished, _ = ray.wait(list(running), timeout=POLL)
        for index, said in ray.get(mailbox.take.remote()):
            if hear(index, said):
                ray.get(mailbox.stop.remote(index))
        for future in finished:
            index = running.pop(future)
            try:
                result, problem = ray.get(future)
            except ray.exceptions.RayError as error:
                result, problem = None, one_line(error)
            yield TaskResult(index, result, problem)


def _do(
    prepare: Callable[..., TaskFunction], arguments: tuple[Any, ...], task: Any, index: int, mailbox: Any
) -> tuple[Any, str]:
    import ray
    import torch

    hide_progress()
    torch.set_num_threads(1)

    def tell(said: Any) -> bool:
        return bool(ray.get(mailbox.put.remote(index, said)))

    try:
        return prepare(*arguments)(task, tell), ""
    except CaratError as error:
        return None, str(error)
    except Exception as error:  # one task must not end the others
        return None, one_line(error)


class Mailbox:
    """Where tasks report to, and read whether they are to stop."""

    def __init__(self) -> None:
        self.said: list[tuple[int, Any]] = []
        self.stopped: set[int] = set()

    def put(self, index: int, said: Any) -> bool:
        """Note a report; answers whether its task is to stop."""
        self.said.append((index, said))
        return index in self.stopped

    def take(self) -> list[tuple[int, Any]]:
        """All reports since the last look."""
        said, self.said = self.said, []
        return said

    def stop(self, index: int) -> None:
        """Let a task stop at its next report."""
        self.stopped.add(index)


def map_tasks(
    ray: Any,
    prepare: Callable[..., TaskFunction],
    arguments: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
) -> Iterator[TaskResult]:
    """As `run_tasks`, by Ray Data, with workers that are prepared once; tasks report nothing."""
    from ray import data

    context = data.DataContext.get_current()
    context.enable_progress_bars = False
    for name in ("ray.data", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if not tasks:
        return
    items = [{"index": index, "task": pickle.dumps(task)} for index, task in enumerate(tasks)]
    found = data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker,
        fn_constructor_args=(prepare, arguments),
        batch_size=1,
        compute=data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(items))),
        num_cpus=1,
    )
    try:
        for row in found.iter_rows():
            yield TaskResult(int(row["index"]), *pickle.loads(row["found"]))
    except ray.exceptions.RayError as error:
        raise RunError(f"Ray: {one_line(error)}") from error


class Worker:
    """Does one task after another."""

    def __init__(self, prepare: Callable[..., TaskFunction], arguments: tuple[Any, ...]) -> None:
        import torch

        hide_progress()
        torch.set_num_threads(1)
        self.prepare, self.arguments = prepare, arguments
        self.work: TaskFunction | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        try:
            self.work = self.work or self.prepare(*self.arguments)
            found = self.work(pickle.loads(batch["task"][0]), lambda said: False), ""
        except CaratError as error:
            found = None, str(error)
        except Exception as error:  # said where the command was given
            found = None, one_line(error)
        return {"index": batch["index"], "found": [pickle.dumps(found)]}
