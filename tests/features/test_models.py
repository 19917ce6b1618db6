"""Model files: found, verified, and fetched from a local server."""

from __future__ import annotations

import hashlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from carat.features import models
from carat.features.models import FOLDER, ModelFiles, fetch_model, find_model
from carat.utils.errors import DataError

FILES = {"weights.bin": b"weights" * 1000, "config.json": b"{}"}


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> ModelFiles:
    """A small known model; no folder of models, and no package has it."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    model = ModelFiles(
        "tiny", "tests", "MIT", hashes, "http://localhost:9", "no-such", "no_such", "no-such==1"
    )
    monkeypatch.setitem(models.MODELS, "tiny", model)
    monkeypatch.delenv(FOLDER, raising=False)
    return model


def put(folder: Path, **changed: bytes) -> Path:
    folder.mkdir(parents=True)
    for name, content in {**FILES, **changed}.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Address of a server on this machine that has the files."""
    put(tmp_path / "published")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "published"))
    ) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def test_a_model_in_the_users_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "models" / "tiny")
    monkeypatch.setenv(FOLDER, str(tmp_path / "models"))
    found = find_model("tiny")
    assert found.file == tmp_path / "models" / "tiny" / "weights.bin"
    assert found.origin == "$CARAT_MODELS"


def test_a_model_in_a_package_whose_code_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "no_such")
    (tmp_path / "no_such" / "__init__.py").write_text("raise SystemExit('imported')")
    information = tmp_path / "no_such-1.5.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: no-such\nVersion: 1.5\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    found = find_model("tiny")
    assert found.folder == tmp_path / "no_such"
    assert found.origin == "package no-such 1.5"


def test_a_model_that_is_missing() -> None:
    with pytest.raises(
        DataError, match=r"'tiny' is not on this machine: run pip install no-such==1, or put "
    ):
        find_model("tiny")
    with pytest.raises(DataError, match="unknown model 'tinny'; did you mean 'tiny'"):
        find_model("tinny")


def test_a_model_with_another_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = put(tmp_path / "tiny", **{"config.json": b"[]"})
    monkeypatch.setenv(FOLDER, str(tmp_path))
    with pytest.raises(DataError, match=r"config\.json: is not the file of 'tiny' \(SHA-256 "):
        find_model("tiny")
    (folder / "config.json").write_bytes(FILES["config.json"])  # noticed although hashes are remembered
    assert find_model("tiny").folder == folder
    (folder / "config.json").unlink()
    with pytest.raises(DataError, match=r"config\.json: no such file"):
        find_model("tiny")


def test_fetching(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "models"))
    fetch_model("tiny", url=server)
    found = find_model("tiny")
    assert {file.name: file.read_bytes() for file in found.folder.iterdir()} == FILES


def test_fetching_again_downloads_only_what_differs(tmp_path: Path, server: str) -> None:
    fetch_model("tiny", tmp_path / "models", server)
    (tmp_path / "published" / "weights.bin").unlink()
    (tmp_path / "models" / "tiny" / "config.json").write_bytes(b"[]")
    found = fetch_model("tiny", tmp_path / "models", server)
    assert (found.folder / "config.json").read_bytes() == FILES["config.json"]


def test_another_content_is_not_kept(tmp_path: Path, server: str) -> None:
    (tmp_path / "published" / "weights.bin").write_bytes(b"other")
    with pytest.raises(DataError, match=r"weights\.bin: SHA-256 is .*; nothing was kept"):
        fetch_model("tiny", tmp_path / "models", server)
    assert not list((tmp_path / "models").rglob("*.*"))


def test_a_file_that_is_not_there(tmp_path: Path, server: str) -> None:
    with pytest.raises(DataError, match=r"/nothing/weights\.bin: cannot be fetched"):
        fetch_model("tiny", tmp_path / "models", f"{server}/nothing")


def test_no_connection(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"localhost:9/weights\.bin: cannot be fetched"):
        fetch_model("tiny", tmp_path)
    with pytest.raises(DataError, match="expected https:// or http://"):
        fetch_model("tiny", tmp_path, "file:///etc")
    with pytest.raises(DataError, match="no folder for models: set CARAT_MODELS"):
        fetch_model("tiny")


@pytest.mark.parametrize("name", ["face_landmarker", "whisper-tiny.en", "silero-vad"])
def test_models_of_installed_packages_are_the_publishers(name: str) -> None:
    try:
        metadata.distribution(models.MODELS[name].package)
    except metadata.PackageNotFoundError:
        pytest.skip(f"needs the package {models.MODELS[name].package}")
    assert find_model(name).origin.startswith("package ")


def test_the_commands(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = run("models", "list")
    assert code == 0
    assert "missing; pip install no-such==1" in " ".join(out.split())
    code, _, err = run("models", "where", "tiny")
    assert code == 2
    assert "model 'tiny' is not on this machine: run pip install no-such==1" in err
    code, _, err = run("models", "fetch", "tiny", "--folder", tmp_path / "mine", "--url", server)
    assert code == 0, err
    assert f"tiny: 2 files verified in {tmp_path / 'mine' / 'tiny'}" in err
    monkeypatch.setenv(FOLDER, str(tmp_path / "mine"))
    code, out, _ = run("models", "where", "tiny")
    assert (code, out.strip()) == (0, str(tmp_path / "mine" / "tiny"))
    assert run("models", "verify", "tiny")[0] == 0
    (tmp_path / "mine" / "tiny" / "config.json").write_bytes(b"other")
    code, _, err = run("models", "verify")
    assert code == 2
    assert "config.json: is not the file of 'tiny'" in err
    code, _, err = run("models", "where", "tinny")
    assert "unknown model 'tinny'; did you mean 'tiny'?" in err
