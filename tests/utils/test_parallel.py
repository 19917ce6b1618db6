"""The same tasks on this machine and on Ray."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from carat.utils.errors import DataError, RunError
from carat.utils.parallel import local, ray
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
    """Both engines whose tasks report."""
    if request.param == "local":
        return local.run_tasks
    return partial(ray.run_tasks, request.getfixturevalue("cluster"))


def prepare(folder: Path) -> TaskFunction:
    """Squares; tasks below 0 go wrong in ways of their own, reports of others say their square."""

    def work(task: int, tell: Report) -> Any:
        with (folder / "begun").open("a") as file:
            file.write(f"{task}\n")
        if task == -1:
            raise DataError("no such\nnumber")
        if task == -2:
            raise ZeroDivisionError("oh")
        if task == -3 or (task == -4 and (folder / "begun").read_text().count("-4\n") < 3):
            os.kill(os.getpid(), signal.SIGKILL)
        told, most = 0, 5000 if task == 5 else 50  # the one that is stopped reports until it hears so
        while told < most and not tell((task, task**2)):
            told += 1
        return {"square": task**2, "stopped": told < most}

    return work


def test_tasks_are_done_whatever_happens_to_workers(engine: Engine, tmp_path: Path) -> None:
    tasks = [3, -1, -2, -3, -4, 5, 6]
    heard = set()

    def hear(index: int, said: tuple[int, int]) -> bool:
        heard.add((index, *said))
        return said[0] == 5

    found = {o.index: o for o in engine(prepare, (tmp_path,), tasks, 2, hear)}
    assert sorted(found) == list(range(7))
    assert found[0] == TaskResult(0, {"square": 9, "stopped": False})
    assert found[1].problem.split() == ["no", "such", "number"]
    assert found[2].problem == "ZeroDivisionError oh"
    assert "died" in found[3].problem
    assert found[3].result is None
    assert (tmp_path / "begun").read_text().count("-3\n") == 3
    assert found[4].result == {"square": 16, "stopped": False}
    assert found[5].result == {"square": 25, "stopped": True}
    assert heard == {(0, 3, 9), (4, -4, 16), (5, 5, 25), (6, 6, 36)}


def test_a_worker_is_prepared_once_and_serves_on(tmp_path: Path) -> None:
    found = list(local.run_tasks(count, (), [0] * 5, 1))
    assert [o.result for o in found] == [1, 2, 3, 4, 5]
    assert list(local.run_tasks(count, (), [], 1)) == []


def count() -> TaskFunction:
    """Tells how many tasks this worker has had."""
    calls = iter(range(1, 100))
    return lambda task, tell: next(calls)


def test_what_cannot_be_prepared_is_said(tmp_path: Path) -> None:
    assert [o.problem for o in local.run_tasks(refuse, (), [1, 2], 1)] == ["no such run"] * 2


def refuse() -> TaskFunction:
    raise RunError("no such run")


@pytest.mark.slow
def test_mapping_on_ray(cluster: Any, tmp_path: Path) -> None:
    found = {o.index: o for o in ray.map_tasks(cluster, prepare, (tmp_path,), [3, -1, -4, 5], 2)}
    assert [found[i].result and found[i].result["square"] for i in range(4)] == [9, None, 16, 25]
    assert found[1].problem.split() == ["no", "such", "number"]


def test_ray_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(RunError, match=r"needs Ray: pip install 'carat\[ray\]'"), ray.cluster(None, 1):
        pass


def test_nobody_at_this_address() -> None:
    pytest.importorskip("ray")
    for address in ("127.0.0.1:1", "ray://127.0.0.1:1"):
        with pytest.raises(RunError, match=f"no Ray cluster at {address}: "), ray.cluster(address, 1):
            pass
