"""Fuzzing: a reader returns samples or raises a CaratError, whatever the file contains."""

from __future__ import annotations

import copy
import pickle
import resource
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.data.cleaning import Cleaning, FeatureCleaner
from carat.data.corpora.label_table import LabelTable
from carat.data.corpora.registry import FORMATS, Sources
from carat.utils.errors import CaratError
from tests.data import field_files as files

ODD: list[Any] = [
    None, True, -1, 0, 7, 10**25, 2.5, float("nan"), float("inf"), "", "x", "vid", b"\xff", (), [], {}, set(),
    "a\r", "\x1b[31m\n", "\ud800", [1, 2, 3], [[1.0, 2.0], [3.0]], ["a", 1], {"a": 1}, {1: 2}, [None],
    np.zeros(0), np.zeros((2, 0)),
    np.zeros((3, 5, 7)), np.ones(3, dtype=bool), np.array(["a", "b"]), np.array([1, None], dtype=object),
    np.array(4.0), np.full((2, 3), np.nan), [0.5] * 40, [[0.25] * 9] * 3, np.zeros((2, 2, 2, 2)),
]  # fmt: skip


def change(value: Any, random: np.random.Generator) -> Any:
    """Replace, remove or repeat something in the value."""
    container = isinstance(value, (dict, list, tuple)) and len(value)
    if random.random() < 0.15 or not (container or (isinstance(value, np.ndarray) and value.ndim)):
        return copy.deepcopy(ODD[random.integers(len(ODD))])
    if isinstance(value, np.ndarray):
        which = random.integers(5)
        if which == 0:
            return value[: random.integers(len(value) + 1)]
        if which == 1 and value.dtype.kind == "f":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return value.astype([np.float16, np.int8, "U3", object][random.integers(4)])
        if which == 2:
            return value.reshape(-1)
        if which == 3 and value.dtype.kind == "f":
            return np.where(random.random(value.shape) < 0.5, np.inf, value)
        return value[None]
    if isinstance(value, dict):
        out = dict(value)
        key = list(out)[random.integers(len(out))]
        if random.random() < 0.1:
            out[[*ODD[:11], *ODD[17:20]][random.integers(14)]] = out.pop(key)
        elif random.random() < 0.1:
            del out[key]
        else:
            out[key] = change(out[key], random)
        return out
    items = list(value)
    position = int(random.integers(len(items)))
    if random.random() < 0.1:
        del items[position]
    elif random.random() < 0.1:
        items.insert(position, items[position])
    else:
        items[position] = change(items[position], random)
    return tuple(items) if isinstance(value, tuple) else items


def mutate_bytes(content: bytes, random: np.random.Generator) -> bytes:
    out = bytearray(content)
    for _ in range(random.integers(1, 4)):
        position = int(random.integers(len(out)))
        out[position : position + int(random.integers(0, 5))] = random.bytes(int(random.integers(0, 5)))
    return bytes(out)


def exhaust(format: str, file: Path, given: Sources) -> None:
    """Read and clean all samples."""
    corpus = FORMATS[format].open(file, given)
    cleaners = {m: FeatureCleaner(m, Cleaning()) for m in corpus.sources}
    for sample in corpus.samples:
        for m, x in sample.features.items():
            cleaners[m].clean(x, sample.id)
    for cleaner in cleaners.values():
        cleaner.report()


def attempt(action: Callable[[], object], which: str) -> str:
    """Return the message of the CaratError that the action raises; fail for any other error."""
    message = ""
    try:
        action()
    except CaratError as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(f"{which}: {type(error).__name__} {error}") from error
    assert "\n" not in message, which
    return message


def write_layout(file: Path) -> None:
    parts = files.dialogue_layout("DialogueRNN meld")
    file.write_bytes(pickle.dumps(tuple(parts), protocol=2))


WRITERS: dict[str, Callable[[Path], None]] = {
    "mosei-aligned": files.aligned,
    "mosei-unaligned": files.unaligned,
    "mmsa": files.mmsa,
    "mult": lambda file: files.mult(file, lambda rows: rows),
    "m3ed": files.m3ed,
    "erc": files.iemocap,
    "erc with parts": write_layout,
}
"""Writers of a valid file by format, or by format and how it is read."""
OPTIONS: dict[str, dict[str, Any]] = {
    "mult": {"label_names": "mosei"},
    "erc with parts": {"parts": "text=3,audio=4,labels=2,sentences=5,train=6,test=7", "label_names": "meld"},
}


def fuzz(case: str, folder: Path, inputs: int, seed: int) -> None:
    file, mutated, table = folder / "good", folder / "mutated.pkl", folder / "labels.csv"
    format = case.partition(" ")[0]
    WRITERS[case](file)
    files.table(table)
    given = Sources(labels=table if "labels" in FORMATS[format].required else None, **OPTIONS.get(case, {}))
    exhaust(format, file, given)
    content = file.read_bytes()
    if content[:2] == b"PK":
        import torch

        whole = torch.load(file, weights_only=False)
    else:
        whole = pickle.loads(content)
    random = np.random.default_rng(seed)
    for i in range(inputs):
        if i % 3:
            value = whole
            for _ in range(random.integers(1, 4)):
                value = change(value, random)
            mutated.write_bytes(pickle.dumps(value, protocol=int(random.integers(2, 6))))
        else:
            mutated.write_bytes(mutate_bytes(content, random))
        started = time.monotonic()
        message = attempt(lambda: exhaust(format, mutated, given), f"{case}, seed {seed}, input {i}")
        assert message.isprintable(), f"{case}, seed {seed}, input {i}"
        assert time.monotonic() - started < 5, f"{case}, seed {seed}, input {i}"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 3 << 20  # KiB; other tests' share included


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "COUNTS", {"train": 3, "valid": 2, "test": 2})
    monkeypatch.setattr(files, "STEPS", {"text": 19, "visual": 5, "audio": 7})
    monkeypatch.setattr(files, "WIDTHS", {"text": 5, "visual": 2, "audio": 7})


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("format", WRITERS)
def test_mutated_files(tmp_path: Path, format: str) -> None:
    fuzz(format, tmp_path, inputs=100, seed=0)


@pytest.mark.slow
@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("format", WRITERS)
def test_many_mutated_files(tmp_path: Path, format: str) -> None:
    fuzz(format, tmp_path, inputs=20_000, seed=1)


def fuzz_tables(folder: Path, inputs: int, seed: int) -> None:
    files.table(folder / "labels.csv")
    content = (folder / "labels.csv").read_bytes()
    random = np.random.default_rng(seed)
    for i in range(inputs):
        (folder / "mutated.csv").write_bytes(mutate_bytes(content, random))
        attempt(lambda: LabelTable(folder / "mutated.csv"), f"seed {seed}, input {i}")


def test_mutated_label_tables(tmp_path: Path) -> None:
    fuzz_tables(tmp_path, inputs=250, seed=0)


@pytest.mark.slow
def test_many_mutated_label_tables(tmp_path: Path) -> None:
    fuzz_tables(tmp_path, inputs=20_000, seed=1)
