from __future__ import annotations

import sys
import time
from pathlib import Path

import h5py
import pytest

from carat.data.corpora import hdf5_trial
from carat.data.corpora.hdf5_trial import try_reading
from carat.utils.errors import DataError

LIMIT = "from carat.data.corpora.hdf5_trial import limit; limit(0)"


def test_files_that_can_be_read_or_are_merely_wrong_pass(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "good.csd", "w") as file:
        entry = file.create_group("words/data/a")
        entry["features"], entry["intervals"] = [[1.0], [2.0]], [[0.0, 1], [1, 2]]
    (tmp_path / "text.csd").write_text("no HDF5")
    try_reading([tmp_path / name for name in ("good.csd", "text.csd", "absent.csd")])


@pytest.mark.parametrize(
    "code", [f"{LIMIT}\nwhile True: pass", f"{LIMIT}; x = bytearray(3 << 30)", "import os; os.abort()"]
)
def test_what_never_ends_takes_too_much_or_crashes_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(hdf5_trial, "COMMAND", [sys.executable, "-c", code])
    started = time.monotonic()
    with pytest.raises(DataError, match=r"x\.csd: cannot be read as HDF5 \(reading it crashes"):
        try_reading([tmp_path / "x.csd"])
    assert time.monotonic() - started < 60
