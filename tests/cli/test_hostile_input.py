"""Hostile and faulty input on the command line: one line that names the fault, exit code 2, within bounds."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carat.config.experiment import load_experiment
from carat.config.yaml_reading import MAX_BYTES
from carat.data.store import Store
from carat.data.store.writer import StoreWriter
from carat.models.build import build
from carat.runs.card import ModalityCard
from carat.training.train import TrainedRun
from carat.utils import memory
from carat.utils.errors import ConfigError
from tests.conftest import without_launcher

MAX_SECONDS = 10
MAX_GROWTH = 2 << 20  # KiB of resident memory

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)

YAML: dict[str, tuple[str, str]] = {
    "aliases that multiply": (ALIASES, "not valid YAML (more than"),
    "merge keys that multiply": (ALIASES.replace("[x,", "[{y: 1},"), "not valid YAML (more than"),
    "an alias of itself": ("seed: &s [*s]", "'*s' refers to itself"),
    "deep lists": ("seed: " + "[" * 10_000, "nested more than"),
    "deep mappings": ("{a: " * 10_000, "nested more than"),
    "deep blocks": ("- " * 10_000, "nested more than"),
    "a huge integer": ("seed: " + "9" * 100_000, "line 1: not valid YAML (the integer is too large)"),
    "a huge hexadecimal": ("seed: 0x" + "f" * 100_000, "the integer is too large"),
    "a huge sexagesimal": ("seed: " + "1:" * 50_000 + "1.5", "not valid YAML (a value does not fit"),
    "an integer beyond 64 bits": ("seed: 99999999999999999999", "the integer is too large"),
    "an empty tagged integer": ("seed: !!int ''", "not valid YAML"),
    "a surrogate": ('seed: "\\ud800"', "half of a surrogate pair"),
    "a NUL": ("seed: \x00", "not valid YAML"),
    "no UTF-8": ("seed: \udcff", "is not UTF-8 text"),
    "a large file": ("# " + "x" * MAX_BYTES, "is larger than 1 MB"),
    "a method that is a list": ("method: [carat]", "method: expected a mapping or a name"),
    "a method that is a number": ("method: 3", "method: expected a mapping or a name"),
    "a method with a list as its name": ("method: {name: [carat]}", "unknown method '['carat']'"),
    "a method with a mapping as its name": ("method: {name: {a: 1}}", "unknown method"),
    "a preset that is a list": ("preset: [small]", "unknown preset"),
    "a section that is a list": ("training: [1]", "training: expected a mapping, found [1]"),
    "a number that is a mapping": ("training: {epochs: {a: 1}}", "training.epochs: "),
    "a mapping that is a text": ("encoders: text", "encoders: "),
    "a key that is a number": ("training: {1: 2}", "training"),
    "a key that is null": ("data: {~: 2}", "data"),
    "a list that is a text": ("data: {modalities: text}", "data.modalities: expected a list such as [text]"),
    "a document that is a list": ("- 1", "expected a mapping, found list"),
    "a document that is a set": ("!!set {a, b}", "expected a mapping, found set"),
    "escape sequences": ('"\\e[31mred": 1', "unknown key '?[31mred'"),
    "a long key": (f"{'k' * 900}: 1", "…"),
}


@pytest.mark.parametrize("name", YAML)
def test_experiments(name: str, run, store: Store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    content, message = YAML[name]
    file = tmp_path / "e.yaml"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    assert_refused(lambda: run("train", file, "--data", store.folder, "--out", tmp_path / "r"), message)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("name", [name for name in YAML if "method" not in name and "preset" not in name])
def test_recipes(name: str, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "r.yaml").write_bytes(YAML[name][0].encode("utf-8", "surrogateescape"))
    assert_refused(lambda: run("data", "build", tmp_path / "r.yaml", tmp_path / "s"), "r.yaml")


@pytest.mark.parametrize("command", ["train {} --data s --out r", "data build {} s"])
@pytest.mark.parametrize(("kind", "message"), [("pipe", "is a named pipe"), ("device", "is a device")])
def test_files_that_never_end(command: str, kind: str, message: str, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "x.yaml"
    os.mkfifo(file) if kind == "pipe" else file.symlink_to("/dev/zero")
    assert_refused(lambda: run(*command.format(file).split()), message)


SIZES: dict[str, tuple[tuple[str, object], str]] = {
    "hidden": (("--method.hidden", 1_000_000), "of memory, but"),
    "addresses": (("--method.hidden", 2_000_000_000), "larger than any memory"),
    "memory bank": (("--method.contrast.queue", 2_000_000_000), "method.name carat with"),
    "positions": (("--method.encoder.max-length", 2_000_000_000), "of memory, but"),
    "layers": (("--method.encoder.other-layers", 10_000), "less than or equal to 100"),
    "epochs": (("--training.epochs", 10**30), "training.epochs: input should be less than or equal"),
    "batch": (("--data.batch-size", 10**12), "data.batch_size: input should be less than or equal"),
    "processes": (("--devices", 300), "training.devices is 300, but this machine has"),
    "processes of any machine": (("--devices", 10**9), "devices"),
    "data loaders": (("--data.workers", 300), "data.workers is 300, but this machine has"),
    "learning rate": (("--training.learning-rate", 1e300), "training.learning_rate: input should be less"),
    "weight decay": (("--training.weight-decay", 1e300), "training.weight_decay: input should be less"),
    "seed": (("--seed", 10**30), "seed: input should be less than"),
    "steps of TAILOR": (("--method.steps", 10**15), "method.steps: input should be less than or equal"),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_beyond_the_machine(name: str, run, store: Store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    option, message = SIZES[name]
    method = "tailor" if "TAILOR" in name else "carat"
    arguments = ["train", "--method", method, "--preset", "small", "--data", store.folder]
    assert_refused(lambda: run(*arguments, "--out", tmp_path / "r", *option), message)
    assert not (tmp_path / "r").exists()


def test_needs_are_compared_with_the_memory_that_is_left(
    run,  # type: ignore[no-untyped-def]
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = ("train", "--preset", "small", "--data", store.folder, "--out", tmp_path / "r")
    monkeypatch.setattr("carat.models.sizes.available_bytes", lambda: 3_000_000)
    code, _, err = run(*arguments)
    assert code == 2
    assert re.search(
        r"method\.name carat with 2\d\d,\d{3} parameters needs at least \d\.\d MB of memory", err
    )
    assert "but 3.0 MB are available; make hidden, layers, queue or max_length smaller" in err
    monkeypatch.setattr("carat.models.sizes.available_bytes", lambda: 10_000_000)
    code, _, err = run(*arguments, "--data.batch-size", 200)
    assert code == 2
    assert "a batch of data.batch_size 200 needs at least" in err
    assert memory.available_bytes() > 100_000_000


@pytest.mark.parametrize("modality", ["a.b", "text[0]", "../x", "\x1b[1m", ""])
def test_names_of_modalities(modality: str, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match="names of modalities have no dots, brackets or slashes"):
        build(load_experiment().method, {}, ["happy"], {modality: ModalityCard(width=3, source="x")})
    np.savez(tmp_path / "f.npz", keys=np.array(["a"]), values=np.ones((1, 2)))
    (tmp_path / "t.csv").write_text("id,split,happy\na,train,1\n")
    source = {"source": "array", "file": "f.npz", "column": "id", "values": "values", "keys": "keys"}
    recipe = {"name": "x", "table": "t.csv", "id": "id", "split": "split", "splits": {"train": "train"}}
    recipe |= {"labels": {"columns": ["happy"]}, "modalities": {modality: source}}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    assert_refused(
        lambda: run("data", "build", tmp_path / "r.yaml", tmp_path / "s"), "names consist of letters"
    )


ARGUMENTS: dict[str, tuple[tuple[str, ...], str]] = {
    "half of a pair": (("data", "info", "\ud800"), "argument 3 is not valid UTF-8: ?"),
    "bytes": (("predict", "run", "--text", "so \udcff"), "argument 4 is not valid UTF-8: so ?"),
    "escape sequence": (("data", "info", "\x1b[31mred"), "?[31mred: no such store"),
    "long": (("data", "info", "x" * 5000), "…"),
    "NUL": (("data", "info", "a\0b"), "argument 3 contains a NUL: a?b"),
    "number of trials": (("sweep", "s", "--data", "d", "--out", "o", "--trials", "9" * 30), "trials"),
    "number of seeds": (("compare", "--data", "d", "--out", "o", "--seeds", "1000000000"), "seeds"),
    "number of workers": (("predict", "r", "--data", "d", "--out", "o", "--workers", "9" * 30), "workers"),
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_arguments(name: str, run) -> None:  # type: ignore[no-untyped-def]
    arguments, message = ARGUMENTS[name]
    assert_refused(lambda: run(*arguments), message)


LAUNCHERS: dict[str, tuple[dict[str, str], str]] = {
    "rank": ({"RANK": "abc", "WORLD_SIZE": "2"}, "environment variable RANK is 'abc'"),
    "rank too large": ({"RANK": "2", "WORLD_SIZE": "2"}, "expected a whole number from 0 to 1"),
    "size": ({"RANK": "0", "WORLD_SIZE": "-1"}, "environment variable WORLD_SIZE is '-1'"),
    "size in other digits": ({"RANK": "0", "WORLD_SIZE": "٣"}, "environment variable WORLD_SIZE"),
    "local rank": ({"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "5"}, "environment variable LOCAL_RANK"),
    "no address": ({"RANK": "0", "WORLD_SIZE": "2"}, "MASTER_ADDR is ''"),
    "port": (
        {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999999"},
        "MASTER_PORT is '99999999'",
    ),
    "tasks": ({"SLURM_NTASKS": "many", "SLURM_PROCID": "0"}, "environment variable SLURM_NTASKS is 'many'"),
    "task": ({"SLURM_NTASKS": "2", "SLURM_PROCID": "x"}, "environment variable SLURM_PROCID is 'x'"),
}


@pytest.mark.parametrize("name", LAUNCHERS)
def test_variables_of_launchers(name: str, run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    variables, message = LAUNCHERS[name]
    without_launcher(monkeypatch)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    assert_refused(lambda: run("train", "--data", tmp_path, "--out", tmp_path / "r"), message)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "abc"},
        {"SLURM_NTASKS": "4"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_JOB_NAME": "zsh"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "x", "SLURM_PTY_PORT": "4711"},
        {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_ID": "4294967290"},
        {"RANK": "0", "WORLD_SIZE": "1"},
    ],
)
def test_variables_of_a_shell_start_no_processes(
    variables: dict[str, str],
    run,  # type: ignore[no-untyped-def]
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    store: Store,
) -> None:
    without_launcher(monkeypatch)
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    options = ("--method", "prior", "--data", store.folder, "--out", tmp_path / "r")
    code, _, err = run("train", *options)
    assert code == 0, err
    assert (tmp_path / "r" / "run.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize(
    "variables",
    [{"MPLBACKEND": "nonsense"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["backend", "locale"],
)
def test_environment(variables: dict[str, str], store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "carat", "train", "--method", "prior", "--data", str(store.folder)]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"} | variables
    done = subprocess.run(
        [*command, "--out", str(tmp_path / "r")], capture_output=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"run \\u2192 {tmp_path / 'r'}".encode() in done.stderr
    assert (tmp_path / "r" / "curves.svg").is_file()


@pytest.mark.parametrize(
    ("arguments", "stdout", "stderr", "code", "message"),
    [
        (("--version",), "/dev/full", None, 2, b": No space left on device\n"),
        (("data", "info", "nothing"), None, "/dev/full", 2, b""),
        (("data", "synth", "s", "--samples", "100"), None, "/dev/full", 0, b""),
    ],
)
def test_full_output(
    arguments: tuple[str, ...],
    stdout: str | None,
    stderr: str | None,
    code: int,
    message: bytes,
    tmp_path: Path,
) -> None:
    files = Path(stdout or os.devnull), Path(stderr or tmp_path / "err")
    with files[0].open("wb") as out, files[1].open("wb") as err:
        command = [sys.executable, "-m", "carat", *arguments]
        done = subprocess.run(command, stdout=out, stderr=err, cwd=tmp_path, check=False)
    assert done.returncode == code
    if stderr is None:
        assert (tmp_path / "err").read_bytes().endswith(message)


def test_the_traceback_is_shown_only_on_request(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def fail(*arguments: object, **options: object) -> None:
        raise ZeroDivisionError("first\nsecond \x1b[31m" + "x" * 1000)

    monkeypatch.setattr("carat.data.synthetic.make_synthetic", fail)
    code, _, err = run("data", "synth", tmp_path / "s")
    assert code == 2
    assert err.startswith("carat: error: unexpected ZeroDivisionError: first second ?[31mxxx")
    assert "please report this fault" in err
    assert err.count("\n") == 1
    assert len(err) < 500
    code, _, err = run("data", "synth", tmp_path / "s", "--debug")
    assert code == 2
    assert "Traceback (most recent call last)" in err


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried …")]
)
def test_out_of_memory(error: Exception, run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def fail(*arguments: object, **options: object) -> None:
        raise error

    monkeypatch.setattr("carat.data.synthetic.make_synthetic", fail)
    assert_refused(lambda: run("data", "synth", tmp_path / "s"), "out of memory; use a smaller model")


def test_control_characters_in_tables(run, trained: TrainedRun, store: Store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "f.npz", **{"\x1b[31mid\x9b/text": store.features("text", 1)})
    code, out, err = run(
        "predict", trained.folder, "--data", tmp_path / "f.npz", "--out", tmp_path / "p.jsonl"
    )
    assert code == 0, err
    assert "?[31mid?" in out
    assert "\x1b[31mid" not in out


def test_control_characters_in_json(run, store: Store, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    names = ["\x1b[31mred", "a\x9bb", "\u202ed\x85", "Zürich \U0001f600", "e", "f"]
    with StoreWriter(tmp_path / "s", "x", names, {"text": "y"}, splits=["test"]) as writer:
        for i in range(2):
            writer.append(f"s{i}", "test", [1] * 6, {"text": np.ones((1, 3))})
    code, out, err = run("data", "info", tmp_path / "s", "--json")
    assert code == 0, err
    assert set(json.loads(out)["co_occurrence"]) == set(names)
    assert all(line.isprintable() for line in out.split("\n"))
    assert "Zürich \U0001f600" in out


def assert_refused(call: Callable[[], tuple[int, str, str]], message: str) -> None:
    """Check that a command ends with one line of at most 400 characters, in time and within the memory."""
    before, started = peak(), time.monotonic()
    code, out, err = call()
    assert time.monotonic() - started < MAX_SECONDS
    assert peak() - before < MAX_GROWTH
    assert code == 2, out + err
    assert out == ""
    assert err.startswith("carat: error: ")
    assert err.count("\n") == 1
    assert err.rstrip("\n").isprintable()
    assert len(err) < 400
    assert "unexpected" not in err
    assert message in err, err


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
