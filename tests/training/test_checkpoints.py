"""Checkpoints that carat did not write, or that were renamed."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from carat.training.checkpoints import CheckedFiles, find_checkpoint
from carat.utils.errors import RunError


class Code:
    """Runs a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("owned",)


def saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def sealed(file: Path, content: bytes) -> Path:
    file.write_bytes(content + hashlib.sha256(content).digest())
    return file


PROGRESS = {"batches_seen": 3, "best": {}}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04",
        pickle.dumps(Code()),
        saved({"state_dict": {}, "progress": PROGRESS, "more": Code()}),
        saved([1]),
        saved({"progress": PROGRESS}),
        saved({"state_dict": {}}),
        saved({"state_dict": {}, "progress": 7}),
    ],
    ids=["empty", "cut", "pickle", "code", "list", "no weights", "no progress", "number"],
)
def test_sealed_files_that_are_no_checkpoints(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = sealed(tmp_path / "step-000000003.ckpt", content)
    assert find_checkpoint(tmp_path) == (file, [])
    message = r"step-000000003\.ckpt: not a checkpoint of carat; remove it \("
    with pytest.raises(RunError, match=message) as caught:
        CheckedFiles().load_checkpoint(file)
    assert "\n" not in str(caught.value)
    assert not Path("owned").exists()


def test_renamed_checkpoints_are_refused(tmp_path: Path) -> None:
    content = saved({"state_dict": {}, "progress": PROGRESS})
    assert (
        CheckedFiles().load_checkpoint(sealed(tmp_path / "step-000000003.ckpt", content))["state_dict"] == {}
    )
    renamed = sealed(tmp_path / "step-999999999.ckpt", content)
    with pytest.raises(RunError, match=r"step-999999999\.ckpt: renamed: it was saved after 3 batches"):
        CheckedFiles().load_checkpoint(renamed)


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, Path.mkdir], ids=["empty", "pipe", "folder"])
def test_others_are_passed_over(make: Callable[[Path], Any], tmp_path: Path) -> None:
    whole = sealed(tmp_path / "step-000000003.ckpt", saved({"state_dict": {}, "progress": PROGRESS}))
    sealed(tmp_path / "step-newest.ckpt", b"")
    sealed(tmp_path / "step-9999999999.ckpt", b"")
    make(tmp_path / "step-000000009.ckpt")
    found, notes = find_checkpoint(tmp_path)
    assert found == whole
    assert len(notes) == 1
    assert notes[0].endswith("; resuming from an earlier state")
