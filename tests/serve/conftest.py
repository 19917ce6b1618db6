"""A server in this process, with a run that reads texts and one that reads features."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from carat.serve.settings import Settings
from carat.training.train import TrainedRun
from tests.models.encoders.conftest import text_encoder, text_run, text_store

__all__ = ["text_encoder", "text_run", "text_store"]  # fixtures

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

HOST = "http://127.0.0.1:8000"


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts a server with runs and settings; returns a client of Starlette's."""
    from starlette.testclient import TestClient

    from carat.serve.app import make_app
    from carat.serve.served_run import find_runs, load_runs

    with ExitStack() as stack:

        def start(*runs: TrainedRun | Path, settings: Settings | None = None, **limits: Any) -> TestClient:
            settings = settings or Settings()
            settings = replace(settings, limits=replace(settings.limits, **limits))
            workspace = tmp_path / "workspace"
            workspace.mkdir(exist_ok=True)
            app = make_app(load_runs(find_runs(runs), device="cpu"), settings, workspace)
            return stack.enter_context(TestClient(app, base_url=HOST))

        yield start
