"""Wheel and source distribution: what is in them, and that a user of the wheel gets a first answer."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from carat.features.models import is_missing
from carat.runs.locating import shipped_runs

ROOT = Path(__file__).resolve().parents[1]
MAX_BYTES = 12e6
"""Size of the wheel, with the model that it carries."""
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=cwd, env=environment or None, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "hatchling", "build", "-d", folder, cwd=ROOT)
    return folder


def test_distributions_hold_the_package_and_nothing_else(built: Path) -> None:
    (wheel,), (source,) = built.glob("*.whl"), built.glob("*.tar.gz")
    assert wheel.stat().st_size <= MAX_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert {x.split("/")[0] for x in names if ".dist-info" not in x} == {"carat"}
    assert "carat/py.typed" in names
    assert "carat/serve/page/index.html" in names
    for name in shipped_runs():
        assert f"carat/runs/shipped/{name}/weights.safetensors" in names
    with tarfile.open(source) as archive:
        top = {x.split("/")[1] for x in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "src"} <= top


def test_the_wheel_answers_at_once(built: Path, tmp_path: Path) -> None:
    """In an environment that has the dependencies, but not the repository, and no network is needed."""
    if is_missing("all-minilm-l6-v2"):
        pytest.skip("the encoder's package is not installed")
    if not shipped_runs():
        pytest.skip("carat comes without a model")
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    run(python, "-m", "pip", "install", "-q", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    (Path(site) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    carat = tmp_path / "venv" / "bin" / "carat"
    offline = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    where = run(python, "-c", "import carat; print(carat.__file__)", cwd=tmp_path, **offline)
    assert where.startswith(site)
    text = "I am so relieved, but I miss him"
    assert "relieved" in run(carat, "predict", "english-text", "--text", text, cwd=tmp_path, **offline)
    assert "english-text" in run(carat, "list", cwd=tmp_path, **offline)
