"""Children in place of `carat.serve.clip_worker.main`: without models, or with fake extractors."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from carat.serve import clip_worker
from carat.serve.clip_worker import ClipTask, result_file
from carat.serve.schemas import FORMATS
from carat.utils.errors import DataError
from carat.utils.progress import progress


def stub_score(task: ClipTask, *_: object) -> dict[str, str]:
    """Do what the name of the clip says, and write its content as the result in every format."""
    content = task.file.read_bytes()
    with progress(f"{task.file.name}, stub", 10) as update:
        update(3)
        if "slow" in task.file.name:
            time.sleep(60)
        if "crash" in task.file.name:
            os.kill(os.getpid(), signal.SIGKILL)
        if "fault" in task.file.name:
            raise KeyError("a secret text")
        if "broken" in task.file.name:
            raise DataError(f"{task.file}: cannot be decoded; see {Path(__file__).resolve()}")
    said = task.transcript.read_bytes() if task.transcript is not None else b""
    for index, name in enumerate(task.runs):
        for format in FORMATS:
            result_file(task.folder, index, format).write_bytes(name.encode() + b":" + content + said)
    return {"TextGrid": "TextGrid files need a package"}


def stub(*arguments: Any) -> None:
    clip_worker.score = stub_score
    clip_worker.main(*arguments)


def with_fake_extractors(*arguments: Any) -> None:
    import pytest

    from tests.features.fakes import use_fakes

    use_fakes(pytest.MonkeyPatch(), Path.cwd())  # the cache is that of the job
    clip_worker.main(*arguments)
