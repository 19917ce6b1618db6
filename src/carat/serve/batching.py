"""Dynamic batching: requests that wait while others are scored are scored together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from carat.serve.errors import ApiError

Item = TypeVar("Item")
Result = TypeVar("Result")
RETRY_SECONDS = 1
"""Seconds after which a client may try again when too many requests wait."""


@dataclass(eq=False)
class _Entry(Generic[Item, Result]):
    item: Item
    weight: int
    future: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Scores requests in the order of their arrival, as many together as wait and fit.

    No request waits for others: the first one is scored at once, and those that arrive meanwhile form the
    next batch.

    Args:
        score: scores several requests, in a thread; returns a result or an exception for each, in order.
        executor: thread in which they are scored.
        max_batch: largest weight of a batch; a heavier request is scored alone.
        max_waiting: largest weight of what waits; further requests are refused.
        on_batch: called with the number of requests and the weight of each batch.
    """

    def __init__(
        self,
        score: Callable[[Sequence[Item]], Sequence[Result | Exception]],
        executor: Executor,
        *,
        max_batch: int,
        max_waiting: int,
        on_batch: Callable[[int, int], None] = lambda requests, weight: None,
    ) -> None:
        self._score, self._executor, self._on_batch = score, executor, on_batch
        self._max_batch, self._max_waiting = max_batch, max_waiting
        self._waiting: deque[_Entry[Item, Result]] = deque()
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Weight of what waits."""
        return sum(entry.weight for entry in self._waiting)

    async def submit(self, item: Item, weight: int, seconds: float) -> Result:
        """Score a request.

        Args:
            item: request.
            weight: number of its texts or samples.
            seconds: time that it may take, with waiting.

        Raises:
            ApiError: too many requests wait (429), or it takes too long (503).
            Exception: that of the request itself.
        """
        if self._waiting and self.waiting + weight > self._max_waiting:
            raise ApiError(429, "too many requests wait; try again later", RETRY_SECONDS)
        entry = _Entry[Item, Result](item, weight, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._drain())
        try:
            return await asyncio.wait_for(entry.future, seconds)
        except TimeoutError as error:
            raise ApiError(503, f"not scored within {seconds:g} s; try again later", RETRY_SECONDS) from error

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        while batch := self._take():
            self._on_batch(len(batch), sum(entry.weight for entry in batch))
            items = [entry.item for entry in batch]
            try:
                results = await loop.run_in_executor(self._executor, self._score, items)
            except Exception as error:
                results = [error] * len(batch)
            for entry, result in zip(batch, results, strict=True):
                if entry.future.done():  # nobody waits for it any more
                    continue
                if isinstance(result, Exception):
                    entry.future.set_exception(result)
                else:
                    entry.future.set_result(result)

    def _take(self) -> list[_Entry[Item, Result]]:
        """Take the requests of the next batch; those that nobody waits for any more are dropped."""
        batch: list[_Entry[Item, Result]] = []
        weight = 0
        while self._waiting:
            entry = self._waiting[0]
            if entry.future.done():
                self._waiting.popleft()
                continue
            if batch and weight + entry.weight > self._max_batch:
                break
            batch.append(self._waiting.popleft())
            weight += entry.weight
        return batch
