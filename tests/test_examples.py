"""The examples work as they stand."""

from __future__ import annotations

import csv
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from carat.data.store import Store
from carat.features.models import is_missing

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"

COMMANDS = """
import json, sys
from carat import cli
for arguments in json.loads(sys.argv[1]):
    sys.argv = ["carat", *arguments]
    print("$", *sys.argv, flush=True)
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise
"""
"""Commands one after the other in one process, which imports PyTorch once."""


def test_plain_pytorch(capsys: pytest.CaptureFixture[str]) -> None:
    file = EXAMPLES / "plain_pytorch.py"
    assert len(file.read_text().splitlines()) < 30
    left = runpy.run_path(str(file))
    printed = capsys.readouterr().out
    losses = [float(x) for x in re.findall(r"loss (\d+\.\d+)", printed)]
    assert len(losses) >= 10
    assert max(losses[-3:]) < 0.9 * min(losses[:3])
    assert left["model"].memory_bank.pointer > 0
    scores = left["model"].score(left["features"], left["masks"]).scores
    assert ((scores > 0.5) == left["labels"].bool()).float().mean() > 0.8
    assert torch.isfinite(scores).all()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package, installed into a folder of its own."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    pip += ["--no-build-isolation", "--no-index", "--target", str(folder), str(EXAMPLES / "custom_method")]
    found = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr
    return folder


def call(installed: Path, folder: Path, commands: list[str]) -> list[str]:
    """What commands of carat print where the package is installed."""
    path = os.pathsep.join([str(installed), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    found = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps([command.split() for command in commands])],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    assert found.returncode == 0, found.stdout + found.stderr
    printed = found.stdout.split("$ carat ")[1:]
    assert len(printed) == len(commands)
    return printed


@pytest.mark.slow
def test_a_method_from_a_package_is_one_like_any_other(  # type: ignore[no-untyped-def]
    installed: Path, store: Store, tmp_path: Path, run
) -> None:
    (tmp_path / "space.yaml").write_text("method.hidden: [2, 5]\n")
    data = f"--data {store.folder}"
    fast = "--training.epochs 1 --training.accelerator cpu"
    commands = {
        "methods": "methods",
        "method": "methods mean-pooling",
        "help": "train --method mean-pooling --help",
        "train": f"train --method mean-pooling --preset small {data} --out run --method.hidden 7 {fast}",
        "evaluate": f"evaluate run {data} --json",
        "predict": f"predict run {data} --split test --out scores.csv",
        "export": f"export run model.pt2 {data}",
        "sweep": f"sweep space.yaml {data} --out sweep --method mean-pooling --trials 2 --workers 1 {fast}",
        "compare": f"compare {data} --out board --methods mean-pooling --seeds 1 --workers 1 {fast}",
    }
    printed = dict(zip(commands, call(installed, tmp_path, list(commands.values())), strict=True))
    assert re.search(r"mean-pooling .*One hidden layer on features averaged over time", printed["methods"])
    assert "Presets: paper, small" in printed["method"]
    assert re.search(r"method.hidden +│ 128 +│ Width of the hidden layer", printed["method"])
    assert "--method.dropout FLOAT" in printed["help"]
    section = yaml.safe_load((tmp_path / "run" / "experiment.yaml").read_text())["method"]
    assert section == {"name": "mean-pooling", "hidden": 7, "dropout": 0.1}
    assert '"micro_f1"' in printed["evaluate"]
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    assert len(rows) == json.loads(printed["evaluate"].partition("\n")[2])["samples"] > 0
    assert (tmp_path / "model.pt2").is_file()
    assert yaml.safe_load((tmp_path / "sweep" / "best.yaml").read_text())["method"]["name"] == "mean-pooling"
    assert "| mean-pooling |" in (tmp_path / "board" / "leaderboard.md").read_text()
    code, out, err = run("evaluate", tmp_path / "run", "--data", store.folder)  # where it is not installed
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "experiment.yaml: unknown method 'mean-pooling'; known: carat, " in err


def test_demo_reads_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    if is_missing("all-minilm-l6-v2"):
        pytest.skip("the encoder's package is not installed")
    runpy.run_path(str(EXAMPLES / "demo.py"))["read_sentence"]()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert any(line.split()[0] == "happy" and "relieved" in line for line in lines)


@pytest.mark.slow
def test_demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLES / "demo.py"), run_name="__main__")
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) <= 25
    found = re.search(r"448 test samples: micro-F1 (0\.\d+)", printed)
    assert found is not None
    assert float(found[1]) >= 0.8
    assert (tmp_path / "demo" / "run" / "curves.svg").is_file()
