from __future__ import annotations

import sys
import time
from pathlib import Path

import h5py
import pytest

from carat.data.corpora import hdf5_sandbox
from carat.data.corpora.hdf5_sandbox import check_readable
from carat.utils.errors import DataError

LIMIT = "from carat.data.corpora.hdf5_sandbox import limit_resources; limit_resources(0)"


def test_readable_and_invalid_files_pass(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "good.csd", "w") as file:
        entry = file.create_group("words/data/a")
        entry["features"], entry["intervals"] = [[1.0], [2.0]], [[0.0, 1], [1, 2]]
    (tmp_path / "text.csd").write_text("not HDF5")
    check_readable([tmp_path / name for name in ("good.csd", "text.csd", "absent.csd")])


@pytest.mark.parametrize(
    "code", [f"{LIMIT}\nwhile True: pass", f"{LIMIT}; x = bytearray(3 << 30)", "import os; os.abort()"]
)
def test_endless_loops_large_allocations_and_crashes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(hdf5_sandbox, "COMMAND", [sys.executable, "-c", code])
    started = time.monotonic()
    with pytest.raises(DataError, match=r"x\.csd: cannot be read as HDF5 \(reading it crashes"):
        check_readable([tmp_path / "x.csd"])
    assert time.monotonic() - started < 60
