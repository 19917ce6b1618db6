"""Fault injection into the command line; guarantees are listed in docs/concepts/reliability.md."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carat.config.experiment import Experiment
from carat.data.store import Store, open_store
from carat.data.synthetic import make_synthetic
from carat.training.train import train
from carat.utils.errors import DataError

pytestmark = pytest.mark.slow

KILLS = 20
KILLS_OF_TWO = 10
SETTINGS = (
    *("--preset", "small", "--training.checkpoint-every", "3"),
    *("--training.ema_decay", "0.9", "--training.modality-dropout", "0.1", "--resume"),
)
FIRST = ("experiment.yaml", "step-*.ckpt")
"""First file of a training run, and its first checkpoint."""
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "carat", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), env=ENVIRONMENT, capture_output=True, text=True)


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(*arguments),
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    """Kill a process and its children."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def when_there(process: subprocess.Popen[str], out: Path, name: str) -> float:
    """Wait until a training run has written a file; return the time."""
    while not list(out.rglob(name)):
        time.sleep(0.01)
        assert process.poll() is None
    return time.monotonic()


def clean(finished: subprocess.CompletedProcess[str], message: str = "") -> None:
    """Assert that the command failed with this message in one line."""
    assert finished.returncode == 2, finished.stderr
    assert "Traceback" not in finished.stderr
    lines = [line for line in finished.stderr.splitlines() if line.startswith("carat: error: ")]
    assert len(lines) == 1, finished.stderr
    assert message in lines[0]


def digests(folder: Path) -> dict[str, str]:
    names = ("weights.safetensors", "metrics.csv", "run.json")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "store"
    make_synthetic(folder, samples=800, seed=3, missing=0.2)
    return folder


@pytest.mark.parametrize(("devices", "kills"), [(1, KILLS), (2, KILLS_OF_TWO)])
def test_training_resumes_after_random_kills(devices: int, kills: int, data: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "--data", data, "--devices", devices, "--training.epochs", 6)
    whole = tmp_path / "whole"
    process = start("train", *settings, "--out", whole)
    moments = [when_there(process, whole, name) for name in FIRST]
    process.communicate()
    assert process.returncode == 0
    lasts = [time.monotonic() - moment for moment in moments]
    expected, dice = digests(tmp_path / "whole"), random.Random(devices)
    resumed = 0
    for number in range(kills):
        out = tmp_path / f"killed{number}"
        process = start("train", *settings, "--out", out)
        when_there(process, out, FIRST[number % 2])
        time.sleep(dice.uniform(0, 1) * lasts[number % 2])
        kill(process)
        again = run("train", *settings, "--out", out)
        assert again.returncode == 0, again.stderr
        resumed += "resuming after" in again.stderr
        assert digests(out) == expected, number
        shutil.rmtree(out)
    print(
        f"{kills} of {kills} trainings ended as if they had not been killed, {resumed} of them from a state"
    )
    assert resumed >= kills / 4  # and not all of them before the first state or after the end


def test_killed_rank_ends_the_training(data: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "--data", data, "--devices", 2, "--out", tmp_path / "run")
    process = start("train", *settings)
    when_there(process, tmp_path, "step-*.ckpt")
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "spawn_main"], capture_output=True, text=True
    )
    os.kill(int(found.stdout.split()[-1]), signal.SIGKILL)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "was killed by signal 9; rerun the same command to resume from the last checkpoint" in errors
    assert "Traceback" not in errors
    again = run("train", *settings)
    assert again.returncode == 0, again.stderr
    assert "resuming after" in again.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_have_their_exit_codes(number: int, code: int, data: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "--data", data, "--out", tmp_path / "run", "--training.epochs", 90)
    process = start("train", *settings)
    when_there(process, tmp_path, "step-*.ckpt")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.strip() == "carat: interrupted: the state is saved; the same command resumes"


def test_concurrent_training_into_one_folder_is_refused(data: Path, tmp_path: Path) -> None:
    settings = (*SETTINGS, "--data", data, "--out", tmp_path / "run", "--training.epochs", 90)
    first = start("train", *settings)
    when_there(first, tmp_path, "step-*.ckpt")
    clean(run("train", *settings), "in use by another carat process")
    overwriting = [x for x in settings if x != "--resume"]
    clean(run("train", *overwriting, "--overwrite"), "in use by another carat process")
    assert first.poll() is None
    kill(first)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Factory of a small file system; another call resizes it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(size: str) -> Path:
        options = f"size={size}" if not os.path.ismount(folder) else f"remount,size={size}"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True
        )
        if mounted.returncode:
            pytest.skip("may not mount a small disk here")
        return folder

    yield sized
    subprocess.run(["umount", folder], capture_output=True)


@pytest.mark.parametrize("size", ["4k", "64k", "700k", "1500k", "2500k"])
def test_full_disk_is_reported(
    size: str, small_disk: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    settings = (*SETTINGS, "--data", data)
    assert run("train", *settings, "--out", tmp_path / "whole").returncode == 0
    out = small_disk(size) / "run"
    clean(run("train", *settings, "--out", out), "No space left on device")
    small_disk("50m")
    again = run("train", *settings, "--out", out)
    assert again.returncode == 0, again.stderr
    assert digests(out) == digests(tmp_path / "whole")


def test_read_only_folder_is_reported(data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    clean(run("train", *SETTINGS, "--data", data, "--out", tmp_path / "file" / "run"), "Not a directory")
    if os.geteuid():
        (tmp_path / "closed").mkdir(mode=0o500)
        clean(
            run("train", *SETTINGS, "--data", data, "--out", tmp_path / "closed" / "run"), "Permission denied"
        )


@pytest.mark.parametrize("seed", range(5))
def test_store_is_complete_or_absent_after_a_kill(seed: int, tmp_path: Path) -> None:
    out, dice = tmp_path / "store", random.Random(seed)
    making = ("data", "synth", out, "--samples", 5000)
    began = time.monotonic()
    assert run(*making[:2], tmp_path / "whole", *making[3:]).returncode == 0
    lasts = time.monotonic() - began
    process = start(*making)
    time.sleep(dice.uniform(0.3, 1.0) * lasts)
    kill(process)
    if out.exists():
        open_store(out).verify()
        return
    again = run(*making)
    assert again.returncode == 0, again.stderr
    assert open_store(out).manifest.fingerprint == open_store(tmp_path / "whole").manifest.fingerprint


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert run("train", *SETTINGS, "--data", data, "--out", folder).returncode == 0
    return folder


@pytest.mark.parametrize("seed", range(5))
def test_export_is_complete_or_absent_after_a_kill(seed: int, trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    out = tmp_path / "one.onnx"
    process = start("export", trained, out)
    time.sleep(random.Random(seed).uniform(2, 15))
    kill(process)
    if out.exists():
        import onnx

        onnx.checker.check_model(str(out))
        return
    again = run("export", trained, out)
    assert again.returncode == 0, again.stderr


def damaged(content: bytes) -> Iterator[bytes]:
    """Flip a byte, truncate, and empty the content."""
    middle = len(content) // 2
    yield content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    yield content[: -max(1, len(content) // 4)]
    yield b""


def test_corrupt_files_of_a_run_are_detected(trained: Path, data: Path, tmp_path: Path) -> None:
    expected = run("evaluate", trained, "--data", data, "--json").stdout
    refused = set()
    for file in sorted(path for path in trained.rglob("*") if path.is_file()):
        name = file.relative_to(trained)
        for content in damaged(file.read_bytes()):
            copy = Path(shutil.copytree(trained, tmp_path / "copy"))
            (copy / name).write_bytes(content)
            found = run("evaluate", copy, "--data", data, "--json")
            if found.returncode:
                clean(found, file.name)
                refused.add(file.name)
            else:
                assert found.stdout == expected, name
            shutil.rmtree(copy)
    assert refused == {"run.json", "experiment.yaml", "weights.safetensors"}


def test_corrupt_files_of_a_store_are_detected(data: Path, tmp_path: Path) -> None:
    store = open_store(data)
    for file in sorted(path for path in data.rglob("*") if path.is_file()):
        name = file.relative_to(data)
        for content in damaged(file.read_bytes()):
            copy = Path(shutil.copytree(data, tmp_path / "copy"))
            (copy / name).write_bytes(content)
            opened = open_if_whole(copy)
            assert opened is None or opened.manifest == store.manifest, name
            shutil.rmtree(copy)


def open_if_whole(folder: Path) -> Store | None:
    """Open a store; None if it is refused."""
    try:
        opened = open_store(folder)
        opened.verify()
    except DataError:
        return None
    return opened


def test_clock_that_goes_backwards(
    store: Store, tiny: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(tiny, store, tmp_path / "whole")
    now = iter(range(10**9, 0, -3600))
    monkeypatch.setattr(time, "time", lambda: float(next(now)))
    train(tiny, store, tmp_path / "run")
    assert digests(tmp_path / "run") == digests(tmp_path / "whole")
