"""What the requests of a server process share: runs, batches, jobs and metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from carat.inference.prediction import Prediction
from carat.serve.batching import Batcher
from carat.serve.clip_queue import ClipQueue
from carat.serve.errors import ApiError
from carat.serve.jobs import Jobs
from carat.serve.metrics import Metrics
from carat.serve.schemas import TextResult
from carat.serve.served_run import FeaturesItem, ServedRun, TextItem
from carat.serve.settings import Settings
from carat.utils.errors import did_you_mean


class State:
    """What the requests of a server process share.

    Args:
        runs: runs by name; the first one is the default.
        settings: settings of the server.
        workspace: private folder of the server.
        clip_worker: function of the child process that scores clips, see `carat.serve.clip_worker.main`.
    """

    def __init__(
        self,
        runs: Mapping[str, ServedRun],
        settings: Settings,
        workspace: Path,
        clip_worker: Callable[..., None],
    ) -> None:
        limits = settings.limits
        self.runs, self.settings, self.limits, self.workspace = runs, settings, limits, workspace
        self.is_stopping = False
        self.metrics = Metrics()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scoring")  # PyTorch has threads of its own
        self._texts: dict[str, Batcher[TextItem, list[TextResult]]] = {}
        self._features: dict[str, Batcher[FeaturesItem, list[Prediction]]] = {}
        for name, run in runs.items():
            self._texts[name] = self._make_batcher(run.score_texts, "texts")
            self._features[name] = self._make_batcher(run.score_features, "features")
        self.metrics.watch_waiting("texts", lambda: sum(x.waiting for x in self._texts.values()))
        self.metrics.watch_waiting("features", lambda: sum(x.waiting for x in self._features.values()))
        self.jobs = Jobs(workspace, limits.keep_seconds)
        self.metrics.watch_jobs(self.count_active_jobs)
        folders = {name: str(run.predictor.folder.resolve()) for name, run in runs.items()}
        arguments = (folders, dict(settings.load), limits.max_clip_seconds)
        self.clips = ClipQueue(self.jobs, clip_worker, arguments, limits.job_seconds)

    def _make_batcher(self, score: Callable[[Sequence[Any]], Sequence[Any]], kind: str) -> Batcher[Any, Any]:
        return Batcher(
            score,
            self._thread,
            max_batch=self.limits.max_batch,
            max_waiting=self.limits.max_waiting,
            on_batch=lambda requests, weight: self.metrics.on_batch(kind, weight),
        )

    def run(self, name: str | None) -> ServedRun:
        """The run with a name; the first one if none is given.

        Raises:
            ApiError: there is no such run.
        """
        if name is None:
            return next(iter(self.runs.values()))
        if name not in self.runs:
            raise ApiError(404, f"no run '{name}'{did_you_mean(name, self.runs)}; see /v1/runs")
        return self.runs[name]

    async def score_texts(self, run: ServedRun, item: TextItem) -> list[TextResult]:
        """Score texts with others that wait; see `Batcher.submit`."""
        return await self._texts[run.name].submit(item, item.weight, self.limits.wait_seconds)

    async def score_features(self, run: ServedRun, item: FeaturesItem) -> list[Prediction]:
        """Score samples with others that wait; see `Batcher.submit`."""
        return await self._features[run.name].submit(item, len(item.samples), self.limits.wait_seconds)

    def count_active_jobs(self) -> int:
        """Number of clips that wait or are being scored, in all processes of the server."""
        return sum(job.is_active for job in self.jobs.all())

    async def close(self) -> None:
        """Fail the jobs that are not finished, and end threads and children."""
        self.is_stopping = True
        await self.clips.stop()
        self._thread.shutdown(wait=False, cancel_futures=True)
