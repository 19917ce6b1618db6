"""End-to-end tests of the command line."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import carat
from carat.data.store import Store, open_store
from carat.training.train import TrainedRun
from tests.conftest import TINY


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file


def assert_error(result: tuple[int, str, str], message: str) -> None:
    """Assert exit code 2 and a one-line error message."""
    code, out, err = result
    assert code == 2
    assert out == ""
    assert err.startswith("carat: error: ")
    assert err.count("\n") == 1
    assert message in err


def test_train_evaluate_and_predict(run, tmp_path: Path, experiment: Path) -> None:  # type: ignore[no-untyped-def]
    store, folder = tmp_path / "store", tmp_path / "run"
    assert run("data", "synth", store, "--samples", 120, "--seed", 4)[0] == 0
    code, out, _ = run("data", "info", store, "--json", "--verify")
    assert code == 0
    summary = json.loads(out)
    assert summary["samples"] == 120
    assert summary["verified"] is True
    code, out, _ = run("data", "info", store)
    assert summary["fingerprint"] in out
    assert "Co-occurrence" in out
    options = ["--training.epochs", 1, "--seed", 3, "--method.encoder.layers.text", 2]
    code, _, err = run("train", experiment, "--data", store, "--out", folder, *options)
    assert code == 0
    assert "best epoch 1: validation micro-F1" in err
    assert f"training curves → {folder / 'curves.svg'}" in err
    resolved = yaml.safe_load((folder / "experiment.yaml").read_text())
    assert resolved["seed"] == 3
    assert resolved["training"]["epochs"] == 1
    assert resolved["method"]["encoder"]["layers"] == {"text": 2, "visual": 1, "audio": 1}
    assert resolved["method"]["hidden"] == TINY["method"]["hidden"]
    code, out, _ = run("evaluate", folder, "--data", store, "--json")
    assert code == 0
    first = json.loads(out)
    assert first["samples"] == summary["splits"]["test"]
    assert json.loads(run("evaluate", folder, "--data", store, "--json")[1]) == first
    code, out, _ = run("evaluate", folder, "--data", store, "--split", "valid")
    assert "micro_f1" in out
    assert "AUROC" in out
    code, out, err = run("predict", folder, "--data", store, "--split", "test", "--out", tmp_path / "p.csv")
    assert code == 0
    assert f"{first['samples']} predictions → " in err
    rows = list(csv.DictReader((tmp_path / "p.csv").read_text().splitlines()))
    test = open_store(store).ids[open_store(store).indices("test")].tolist()
    assert [row["id"] for row in rows] == test
    assert "attribution_happy" in rows[0]


def test_feature_file_is_scored(run, trained: TrainedRun, store: Store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    sample = store[int(store.indices("test")[0])]
    np.savez(tmp_path / "clip.npz", **sample.features)
    code, _, err = run(
        "predict", trained.folder, "--data", tmp_path / "clip.npz", "--out", tmp_path / "p.jsonl"
    )
    assert code == 0, err
    (line,) = (tmp_path / "p.jsonl").read_text().splitlines()
    expected = carat.load(trained.folder).predict(sample.features)
    assert json.loads(line)["score_sad"] == expected.scores["sad"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("trian", 'Did you mean "train"?'),
        ("data bild", 'Did you mean "build"?'),
        ("train --data s --out r --training.epochz 3", "Did you mean --training.epochs?"),
        ("train --out r", "--data is missing"),
        ("train --data s --out r --threshold per-label", "threshold: expected a mapping"),
        ("data synth", "STORE is missing"),
        ("data synth s --seed -1", "seed must not be negative"),
        ("train --data s --out r --training.epochs many", "training.epochs: input should be a valid integer"),
        (
            "train --data s --out r --training.epochs 0",
            "training.epochs: input should be greater than 0, found",
        ),
        ("train --data s --out r --preset smal", "unknown preset 'smal'; did you mean 'small'?"),
        ("train none.yaml --data s --out r", "none.yaml: cannot be read (No such file or directory)"),
        ("train --data nowhere --out r", "nowhere: no such store"),
        ("data info nowhere", "nowhere: no such store"),
        ("data build nowhere.yaml s", "nowhere.yaml: cannot be read"),
        ("data synth s --samples 5", "samples must be at least 100, found 5"),
        ("evaluate nowhere --data s", "nowhere: no such run"),
        ("predict nowhere --data s --out p.txt", "unknown ending '.txt'"),
        ("predict nowhere --data s --out p.csv", "s: no such store or file"),
    ],
)
def test_invalid_input_is_a_one_line_error_and_writes_nothing(  # type: ignore[no-untyped-def]
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert_error(run(*arguments.split()), message)
    assert list(tmp_path.iterdir()) == []


def test_invalid_arguments_with_a_store(  # type: ignore[no-untyped-def]
    run, store: Store, trained: TrainedRun, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    before = sorted(tmp_path.iterdir())
    common = ["--data", store.folder, "--out", tmp_path / "r"]
    assert_error(
        run("train", experiment, *common, "--training.accelerator", "gpu"),
        "but no GPU is available to PyTorch; use auto or cpu",
    )
    assert_error(run("train", experiment, *common, "--method.encoder.max-length", 5), "but max_length is 5")
    assert_error(run("train", experiment, *common, "--data.modalities", "smell"), "no modality 'smell'")
    assert_error(run("train", experiment, *common, "--method.hidden", 15), "hidden 15 is not a multiple")
    assert_error(
        run("evaluate", trained.folder, "--data", store.folder, "--split", "tset"), "no split 'tset'"
    )
    assert_error(run("data", "synth", store.folder), "holds a store already; --overwrite replaces it")
    existing = ["--data", store.folder, "--out", trained.folder]
    assert_error(run("train", experiment, *existing), "holds a run already; --overwrite replaces it")
    assert sorted(tmp_path.iterdir()) == before
    copy = Path(shutil.copytree(store.folder, tmp_path / "copy"))
    (copy / "labels.npy").write_bytes(b"")
    assert_error(run("train", experiment, "--data", copy, "--out", tmp_path / "r"), "labels.npy: truncated")
    assert not (tmp_path / "r").exists()


def test_operating_system_errors_are_one_line(run, store: Store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    assert_error(run("data", "synth", tmp_path / "file" / "s"), "file")
    assert_error(
        run("train", "--preset", "small", "--data", store.folder, "--out", tmp_path / "file" / "r"), "file"
    )


def test_options_are_validated_together_with_the_preset(run, store: Store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    options = ["--data", store.folder, "--out", tmp_path / "r", "--preset", "small"]
    options += ["--training.epochs", 1, "--data.modalities", "text", "audio"]
    code, _, err = run("train", *options, "--method.hidden", 20)
    assert code == 0, err
    assert_error(run("train", *options, "--overwrite", "--method.hidden", 21), "hidden 21 is not a multiple")


def test_brackets_in_names_are_not_interpreted_as_markup(
    run, trained: TrainedRun, store: Store, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "f.npz", **{"[/b] x/text": store.features("text", 1)})
    code, out, err = run("predict", trained.folder, "--data", tmp_path / "f.npz", "--out", tmp_path / "p.csv")
    assert code == 0, err
    assert "[/b] x" in out


def test_debug_shows_the_traceback(run) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("data", "info", "nowhere", "--debug")
    assert code == 2
    assert "Traceback" in err
    assert err.endswith("carat data synth`)\n")


def test_a_recording_without_its_option_is_pointed_to_it(run) -> None:  # type: ignore[no-untyped-def]
    code, _, error = run("predict", "my-run", "talk.MP4")
    assert code == 2
    assert error == (
        "carat: error: talk.MP4: recordings are scored with --clip, e.g. --clip talk.MP4 --out timelines\n"
    )


def test_version(run) -> None:  # type: ignore[no-untyped-def]
    assert run("--version") == (0, f"carat {carat.__version__}\n", "")


@pytest.mark.parametrize(
    "command", ["", "data", "data synth", "data build", "data info", "train", "evaluate", "predict"]
)
def test_every_command_has_help_with_examples(run, command: str) -> None:  # type: ignore[no-untyped-def]
    code, out, _ = run(*command.split(), "--help")
    assert code == 0
    if command not in ("", "data"):
        assert "Examples" in out
        assert f"carat {command} " in " ".join(out.split())


def test_shell_completion_is_offered(run) -> None:  # type: ignore[no-untyped-def]
    assert "--install-completion" in run("--help")[1]


def test_import_is_fast() -> None:
    """Heavy packages are imported only by the commands that need them."""
    script = (
        "import sys, carat, carat.cli\n"
        "heavy = {'torch', 'lightning', 'numpy', 'sklearn', 'pyarrow', 'matplotlib'} & set(sys.modules)\n"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert process.stderr.strip() == ""
    assert process.returncode == 0


@pytest.mark.slow
def test_one_line_per_epoch_when_not_a_terminal(store: Store, experiment: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "carat", "train", str(experiment), "--data", str(store.folder)]
    command += ["--out", str(tmp_path / "r"), "--training.epochs", "1"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert process.stdout == ""
    lines = process.stderr.splitlines()
    assert [line.split()[0] for line in lines] == ["epoch", "best", "run", "training"], process.stderr


def test_interruption_is_reported(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("carat.data.synthetic.make_synthetic", interrupt)
    code, _, err = run("data", "synth", tmp_path / "store")
    assert code == 130
    assert err == "carat: interrupted: the same command continues with what is not finished\n"
