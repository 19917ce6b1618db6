"""Runs on the Hugging Face Hub, against a local stand-in for its HTTP API."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import carat
from carat.data.store import Store
from carat.runs.hub import HubName, parse_name
from carat.training.train import TrainedRun
from carat.utils.errors import ConfigError, RunError
from tests.runs.hub_server import Hub, serve_hub

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serve_hub() as served:
        monkeypatch.setenv("HF_ENDPOINT", served.url)
        monkeypatch.setenv("HF_TOKEN", "hf_test")
        monkeypatch.setenv("CARAT_CACHE", str(tmp_path / "cache"))
        yield served


def downloads(hub: Hub) -> list[str]:
    return [x for x in hub.requests if x.startswith("GET /me/run/resolve/")]


def test_names() -> None:
    assert parse_name("hf://me/a.b-c_1@feature/x") == HubName("me/a.b-c_1", "feature/x")
    assert parse_name(Path("hf://me/run")) == HubName("me/run", "main")
    assert parse_name("hf") is None
    assert parse_name(Path("runs/hf:/x")) is None
    for name in (
        "hf://me",
        "hf://me/run@",
        "hf://me/run@../x",
        "hf://me/run/more",
        "hf://me/\x1b[31m",
        "hf:///",
    ):
        with pytest.raises(ConfigError, match="no name of a run on the hub"):
            parse_name(name)


def test_pushed_runs_load_again(hub: Hub, trained: TrainedRun, store: Store, run: Any) -> None:
    name = carat.push(trained.folder, "hf://me/run")
    assert name == f"hf://me/run@{hub.commit}"
    assert hub.created[0]["name"] == "run"
    assert set(hub.files) >= {"run.json", "experiment.yaml", "weights.safetensors", "metrics.csv"}
    assert not any("checkpoint" in file for file in hub.files)
    assert hub.files["README.md"] == (trained.folder / "model_card.md").read_bytes()
    predictor = carat.load("hf://me/run", "cpu")
    assert predictor.score(store, "test")[1].tolist() == (
        carat.load(trained.folder, "cpu").score(store, "test")[1].tolist()
    )
    before = len(downloads(hub))
    assert before >= 3
    assert carat.load(name, "cpu").folder == predictor.folder
    assert len(downloads(hub)) == before
    code, out, err = run("evaluate", "hf://me/run@v1", "--data", store.folder)
    assert code == 0, err
    assert "micro_f1" in out
    code, out, err = run("list", trained.folder.parent, "--json")
    assert code == 0, err
    listed = {x["name"]: x for x in json.loads(out)}
    assert {str(trained.folder), "hf://me/run@v1", "hf://me/run@main"} <= listed.keys()
    assert listed["hf://me/run@v1"]["micro_f1"] == trained.card.validation["micro_f1"]
    code, out, err = run("list", trained.folder.parent)
    assert code == 0, err
    assert "valid micro-F1" in out


def test_without_network_the_cache_is_used(
    hub: Hub, trained: TrainedRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    carat.push(trained.folder, "hf://me/run")
    folder = carat.load("hf://me/run", "cpu").folder
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert carat.load("hf://me/run", "cpu").folder == folder
    with pytest.raises(
        RunError, match=r"hf://me/other@main: the hub cannot be reached .*and there is no copy"
    ):
        carat.load("hf://me/other", "cpu")


@pytest.mark.parametrize("name", ["carat.py", "weights.bin", "model.pkl", "encoders/text/x.so", "a/run.json"])
def test_files_that_could_run_code_are_refused(hub: Hub, trained: TrainedRun, name: str) -> None:
    carat.push(trained.folder, "hf://me/run")
    hub.files[name] = b"print()"
    with pytest.raises(RunError, match="is no file of a run; repositories with code or pickles are refused"):
        carat.load("hf://me/run", "cpu")
    assert not downloads(hub)


def test_altered_files_are_refused(hub: Hub, trained: TrainedRun, tmp_path: Path) -> None:
    carat.push(trained.folder, "hf://me/run")
    hub.files["weights.safetensors"] = hub.files["weights.safetensors"][:-1] + b"\0"
    with pytest.raises(RunError, match=r"weights\.safetensors: modified after training"):
        carat.load("hf://me/run", "cpu")
    with pytest.raises(RunError, match="modified after training"):
        carat.load("hf://me/run", "cpu")
    del hub.files["run.json"]
    with pytest.raises(RunError, match=r"not a carat run, run\.json is missing"):
        carat.load("hf://me/run", "cpu")


def test_what_does_not_exist(hub: Hub, trained: TrainedRun, run: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="hf://me/none@main: no such repository, or it is private"):
        carat.load("hf://me/none", "cpu")
    carat.push(trained.folder, "hf://me/run")
    with pytest.raises(RunError, match="has no revision 'v9'"):
        carat.load("hf://me/run@v9", "cpu")
    code, _, err = run("push", tmp_path, "hf://me/run")
    assert code == 2
    assert "not a carat run" in err
    code, _, err = run("push", trained.folder, "me/run")
    assert code == 2
    assert "no name on the hub" in err


def test_lists_say_what_cannot_be_read(trained: TrainedRun, tmp_path: Path, run: Any) -> None:
    broken = tmp_path / "a" / "broken"
    broken.mkdir(parents=True)
    (broken / "run.json").write_text("{")
    (broken / "experiment.yaml").write_text("")
    (tmp_path / "link").symlink_to(trained.folder)
    (listed,) = carat.list_runs(tmp_path)[:1]
    assert (listed.name, listed.method) == (str(broken), "")
    assert "run.json" in listed.problem
    code, _, err = run("list", tmp_path / "none")
    assert code == 2
    assert "no such folder" in err
