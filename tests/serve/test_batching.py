"""Requests that wait are scored together, and each gets its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import carat
from carat.serve.batching import Batcher
from carat.serve.errors import ApiError
from carat.serve.served_run import FeaturesItem, ServedRun, TextItem
from carat.training.train import TrainedRun
from carat.utils.errors import DataError


class Scoring:
    """Doubles numbers, when it is let go on; an odd number fails."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go_on = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[Any]:
        self.batches.append(list(items))
        assert self.go_on.wait(10)
        return [2 * item if item % 2 == 0 else DataError(f"{item} is odd") for item in items]


def run_batcher(test: Any, **limits: int) -> Scoring:
    """Run a test coroutine with a batcher and its scoring."""
    scoring = Scoring()

    async def run() -> None:
        with ThreadPoolExecutor(1) as thread:
            batcher: Batcher[int, int] = Batcher(
                scoring, thread, **{"max_batch": 4, "max_waiting": 6, **limits}
            )
            try:
                await test(batcher, scoring)
            finally:
                scoring.go_on.set()

    asyncio.run(run())
    return scoring


def test_what_arrives_meanwhile_is_the_next_batch() -> None:
    async def test(batcher: Batcher[int, int], scoring: Scoring) -> None:
        tasks = [asyncio.create_task(batcher.submit(i, 1, 10.0)) for i in (2,)]
        await asyncio.sleep(0.05)
        tasks += [asyncio.create_task(batcher.submit(i, 1, 10.0)) for i in (4, 5, 6, 8, 10)]
        await asyncio.sleep(0.05)
        assert batcher.waiting == 5
        scoring.go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(x) for x in results] == ["4", "8", "5 is odd", "12", "16", "20"]

    assert run_batcher(test).batches == [[2], [4, 5, 6, 8], [10]]


def test_heavy_requests_are_scored_alone() -> None:
    async def test(batcher: Batcher[int, int], scoring: Scoring) -> None:
        scoring.go_on.set()
        weights = {2: 1, 4: 9, 6: 3, 8: 1, 10: 1}
        tasks = [asyncio.create_task(batcher.submit(i, w, 10.0)) for i, w in weights.items()]
        assert await asyncio.gather(*tasks) == [4, 8, 12, 16, 20]

    assert run_batcher(test, max_waiting=99).batches == [[2], [4], [6, 8], [10]]


def test_too_many_are_refused_and_late_ones_end() -> None:
    async def test(batcher: Batcher[int, int], scoring: Scoring) -> None:
        first = asyncio.create_task(batcher.submit(2, 1, 10.0))
        await asyncio.sleep(0.05)
        waiting = [asyncio.create_task(batcher.submit(4, 3, 0.2)) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(ApiError, match="too many requests wait") as refused:
            await batcher.submit(6, 1, 10.0)
        assert (refused.value.status, refused.value.retry_after) == (429, 1)
        late = await asyncio.gather(*waiting, return_exceptions=True)
        assert [x.status for x in late if isinstance(x, ApiError)] == [503, 503]
        scoring.go_on.set()
        assert await first == 4
        assert await batcher.submit(8, 1, 10.0) == 16
        assert batcher.waiting == 0

    assert run_batcher(test).batches == [[2], [8]]


def test_a_request_that_nobody_waits_for_is_not_scored() -> None:
    async def test(batcher: Batcher[int, int], scoring: Scoring) -> None:
        first = asyncio.create_task(batcher.submit(2, 1, 10.0))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(batcher.submit(4, 1, 10.0))
        third = asyncio.create_task(batcher.submit(6, 1, 10.0))
        await asyncio.sleep(0.05)
        second.cancel()
        scoring.go_on.set()
        assert await asyncio.gather(first, third) == [4, 12]

    assert run_batcher(test).batches == [[2], [6]]


def test_texts_of_several_requests_are_scored_as_alone(text_run: TrainedRun) -> None:
    run = ServedRun("text", carat.load(text_run, device="cpu"))
    words = ["so", "glad", "tears", "hate", "fun", "now", "i", "am"]
    random = np.random.default_rng(0)
    items = [
        TextItem(
            [" ".join(random.choice(words, random.integers(1, 13))) for _ in range(random.integers(1, 5))],
            words=int(random.integers(0, 3)),
        )
        for _ in range(17)
    ]
    together = run.score_texts(items)
    for item, results in zip(items, together, strict=True):
        expected = run.predictor.predict_text(item.texts, words=item.words)
        assert not isinstance(results, Exception)
        assert [x.text for x in results] == list(item.texts)
        for found, prediction in zip(results, expected, strict=True):
            assert found.scores == pytest.approx(prediction.scores, abs=1e-6)
            assert (found.labels, found.words) == (prediction.labels, prediction.words)


def test_a_request_that_fails_does_not_affect_the_others(trained: TrainedRun, store: Any) -> None:
    run = ServedRun("tiny", carat.load(trained, device="cpu"))
    good = FeaturesItem({"a": {m: np.asarray(x) for m, x in store[0].features.items()}}, raw=False)
    bad = FeaturesItem({"b": {"text": np.zeros((3, 2), np.float32)}}, raw=False)
    first, second, third = run.score_features([good, bad, good])
    assert isinstance(second, DataError)
    assert first == third == [run.predictor.predict(good.samples["a"], raw=False)]
