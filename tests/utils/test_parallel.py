"""Pools of workers: local and Ray."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from carat.utils.errors import DataError, Interrupted, RunError
from carat.utils.parallel import local, ray
from carat.utils.parallel.child import start_child
from carat.utils.parallel.pool import run_tasks
from carat.utils.parallel.tasks import Report, TaskFunction, TaskResult

Engine = Callable[..., Iterator[TaskResult]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    pickler = pytest.importorskip("ray.cloudpickle")
    pickler.register_pickle_by_value(sys.modules[__name__])  # workers do not find the tests
    with ray.cluster(None, 2) as connected:
        yield connected


@pytest.fixture(params=["local", pytest.param("tasks", marks=pytest.mark.slow)])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Both engines that support reports."""
    if request.param == "local":
        return local.run_tasks
    return partial(ray.run_tasks, request.getfixturevalue("cluster"))


def prepare(folder: Path) -> TaskFunction:
    """Report and return squares; negative tasks fail in different ways."""

    def work(task: int, report: Report) -> Any:
        with (folder / "begun").open("a") as file:
            file.write(f"{task}\n")
        if task == -1:
            raise DataError("no such\nnumber")
        if task == -2:
            raise ZeroDivisionError("oh")
        if task == -3 or (task == -4 and (folder / "begun").read_text().count("-4\n") < 3):
            os.kill(os.getpid(), signal.SIGKILL)
        reports, most = 0, 5000 if task == 5 else 50  # the one that is stopped reports until then
        while reports < most and not report((task, task**2)):
            reports += 1
        return {"square": task**2, "stopped": reports < most}

    return work


def test_tasks_complete_despite_failures_and_dead_workers(engine: Engine, tmp_path: Path) -> None:
    tasks = [3, -1, -2, -3, -4, 5, 6]
    reports = set()

    def on_report(index: int, report: tuple[int, int]) -> bool:
        reports.add((index, *report))
        return report[0] == 5

    found = {o.index: o for o in engine(prepare, (tmp_path,), tasks, 2, on_report=on_report)}
    assert sorted(found) == list(range(7))
    assert found[0] == TaskResult(0, {"square": 9, "stopped": False})
    assert found[1].problem.split() == ["no", "such", "number"]
    assert found[2].problem == "ZeroDivisionError oh"
    assert found[3].died
    assert found[3].problem
    assert found[3].result is None
    assert not any(found[i].died for i in (0, 1, 2, 4, 5, 6))
    assert (tmp_path / "begun").read_text().count("-3\n") == 3
    assert found[4].result == {"square": 16, "stopped": False}
    assert found[5].result == {"square": 25, "stopped": True}
    assert reports == {(0, 3, 9), (4, -4, 16), (5, 5, 25), (6, 6, 36)}


def test_worker_is_prepared_once(tmp_path: Path) -> None:
    found = list(local.run_tasks(count, (), [0] * 5, 1))
    assert [o.result for o in found] == [1, 2, 3, 4, 5]
    assert list(local.run_tasks(count, (), [], 1)) == []


def count() -> TaskFunction:
    """Count the tasks of a worker."""
    calls = iter(range(1, 100))
    return lambda task, report: next(calls)


def test_fresh_processes(tmp_path: Path) -> None:
    found = list(run_tasks(count, (), [0] * 3, 2, fresh_processes=True))
    assert [o.result for o in found] == [1, 1, 1]
    assert active_children() == []


def test_task_fails_after_its_attempts(tmp_path: Path) -> None:
    (found,) = run_tasks(prepare, (tmp_path,), [-3], 1, attempts=1)
    assert found == TaskResult(0, None, "its worker was killed by signal 9", died=True)
    assert (tmp_path / "begun").read_text() == "-3\n"


def test_closing_the_iterator_kills_the_workers(tmp_path: Path) -> None:
    results = run_tasks(sleep, (), [0, 60], 2)
    assert next(results).index == 0
    results.close()
    assert active_children() == []


def sleep() -> TaskFunction:
    """Run tasks that sleep for a number of seconds."""
    return lambda task, report: time.sleep(task)


def test_ray_engine_without_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(RunError, match=r"needs Ray: pip install 'carat-emotion\[ray\]'"):
        list(run_tasks(count, (), [0], 1, engine="ray"))


def end_as(code: int, pipe: Any) -> None:
    os._exit(code)


def test_children_have_names_and_exit_codes() -> None:
    child = start_child(end_as, 3, name="process 1 of 2")
    child.process.join()
    assert (child.process.name, child.process.exitcode) == ("process 1 of 2", 3)


def test_failure_to_prepare_is_reported(tmp_path: Path) -> None:
    assert [o.problem for o in local.run_tasks(refuse, (), [1, 2], 1)] == ["no such run"] * 2


def refuse() -> TaskFunction:
    raise RunError("no such run")


@pytest.mark.slow
def test_mapping_on_ray(cluster: Any, tmp_path: Path) -> None:
    found = {o.index: o for o in ray.map_tasks(cluster, prepare, (tmp_path,), [3, -1, -4, 5], 2)}
    assert [found[i].result and found[i].result["square"] for i in range(4)] == [9, None, 16, 25]
    assert found[1].problem.split() == ["no", "such", "number"]


def test_unavailable_ray_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with (
        pytest.raises(RunError, match=r"needs Ray: pip install 'carat-emotion\[ray\]'"),
        ray.cluster(None, 1),
    ):
        pass


def test_unreachable_address_is_reported() -> None:
    pytest.importorskip("ray")
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(RunError, match=f"no Ray cluster at {address}: "), ray.cluster(address, 1):
            pass


def fail(folder: Path) -> TaskFunction:
    """Fail, die, or fork a process that outlives the worker and keeps its pipe open."""

    def work(task: str, report: Report) -> Any:
        if task == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "checkpoint")
        if task == "lambda":
            return lambda: None  # cannot be sent
        if task == "interrupted":
            threading.Thread(target=time.sleep, args=(60,)).start()  # the process would wait for it
            raise Interrupted(15)
        if task == "fork":
            sleeper = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
            sleeper.start()
            (folder / "pid").write_text(str(sleeper.pid))
            os.kill(os.getpid(), signal.SIGKILL)
        return None

    return work


@pytest.mark.slow
@pytest.mark.parametrize(("fresh", "workers"), [(True, 1), (False, 2)])
def test_every_failure_ends_with_a_result(fresh: bool, workers: int, tmp_path: Path) -> None:
    tasks = ["full", "lambda", "interrupted", "fork", "none"]
    began = time.monotonic()
    results = run_tasks(fail, (tmp_path,), tasks, workers, fresh_processes=fresh, attempts=1)
    found = {result.index: result for result in results}
    assert time.monotonic() - began < 40
    assert found[0].problem == "OSError [Errno 28] No space left on device: 'checkpoint'"
    assert [found[i].died for i in range(5)] == [False, True, True, True, False]
    assert found[3].problem == "its worker was killed by signal 9"
    assert found[4] == TaskResult(4)
    assert active_children() == []
    assert is_gone(int((tmp_path / "pid").read_text()))


def is_gone(pid: int) -> bool:
    """Whether a process has ended, or ends soon."""
    for _ in range(50):
        status = Path(f"/proc/{pid}/stat")
        if not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


SCRIPT = """
from carat.utils.parallel.pool import run_tasks
from tests.utils.test_parallel import sleep

if __name__ == "__main__":
    results = run_tasks(sleep, (), [0, 60, 60, 60], WORKERS)
    next(results)
    END
"""


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("end", ["raise OSError('full')", "import os, signal; os.kill(0, signal.SIGINT)"])
def test_workers_never_keep_a_process_from_ending(end: str, workers: int, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("WORKERS", str(workers)).replace("END", end))
    ended = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert ended.returncode != 0
    assert "spawn" not in ended.stderr, ended.stderr  # no traceback of a worker


def count_threads() -> TaskFunction:
    """Report the number of threads of PyTorch, which is imported late."""

    def work(task: int, report: Report) -> int:
        import torch

        return torch.get_num_threads()

    return work


def test_workers_compute_with_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    (found,) = local.run_tasks(count_threads, (), [0], 1)
    assert found.result == 1


KILLED = """
import sys, time
sys.path.insert(0, {folder!r})
from tests.utils.test_parallel import leave_semaphore
from carat.utils.parallel.local import run_tasks

if __name__ == "__main__":
    next(run_tasks(leave_semaphore, (), [0], 1)).result
"""


def leave_semaphore() -> TaskFunction:
    """Run tasks that leave a semaphore behind when their worker is killed."""
    semaphores: list[Any] = []

    def work(task: int, report: Report) -> None:
        semaphores.append(multiprocessing.get_context("spawn").Semaphore())

    return work


def test_killed_workers_leave_no_warning(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(KILLED.format(folder=str(Path(__file__).parents[2])))
    outcome = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert outcome.stderr == ""
