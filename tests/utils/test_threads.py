"""Threads: what is available, what is set, and what threads do while they wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from carat.utils.threads import available_cores, set_threads, wait_passively


@pytest.mark.parametrize(
    ("content", "cores"), [("max 100000", None), ("50000 100000", 1), ("x", None), ("", None), ("1 0", None)]
)
def test_quota_of_a_container(content: str, cores: int | None, tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text(content)
    everything = available_cores(tmp_path / "none")
    assert available_cores(tmp_path / "cpu.max") == (cores or everything)
    assert everything == len(os.sched_getaffinity(0))


def test_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    try:
        assert set_threads(3) == torch.get_num_threads() == 3
        assert os.environ["OMP_NUM_THREADS"] == "3"
        monkeypatch.setattr("carat.utils.threads.available_cores", lambda: 2)
        assert set_threads() == torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_threads_wait_passively_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    wait_passively()
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_the_command_line_sets_it_before_pytorch_reads_it() -> None:
    code = "import sys, carat.cli; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
