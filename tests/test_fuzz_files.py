"""Fuzzing of received files: whatever a card, manifest, table or feature file holds, the outcome is one line.

See `tests.fuzzing` for the number of inputs.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carat.config.experiment import Experiment
from carat.data.arrays import ArrayFile
from carat.data.recipes.sources.table import Table
from carat.data.store import Store, open_store
from carat.data.store.manifest import FileInfo, ModalityInfo, fingerprint
from carat.inference.features import read_features
from carat.inference.loading import load
from carat.runs.card import CARD, _canonical, _digest, read_run
from carat.training.train import TrainedRun
from tests.fuzzing import FUZZ, VALUES, attempt, mutated

MUTATIONS = st.lists(st.tuples(st.integers(0, 1 << 30), st.binary(max_size=3), st.integers(0, 3)), max_size=4)
"""Positions in a file, bytes to insert there, and how many to remove."""


def changed(content: bytes, mutations: list[tuple[int, bytes, int]]) -> bytes:
    out = bytearray(content)
    for position, inserted, removed in mutations:
        start = position % (len(out) + 1)
        out[start : start + removed] = inserted
    return bytes(out)


@pytest.fixture(scope="module")
def run_folder(trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "run"
    shutil.copytree(trained.folder, folder)
    return folder


@pytest.fixture(scope="module")
def store_folder(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "store"
    shutil.copytree(store.folder, folder)
    return folder


@FUZZ
@given(data=st.data(), sealed=st.booleans())
def test_cards(data: st.DataObject, sealed: bool, run_folder: Path, trained: TrainedRun) -> None:
    content = data.draw(mutated(json.loads((trained.folder / CARD).read_text())) | VALUES)
    if sealed:
        with contextlib.suppress(Exception):  # a digest that fits, as an attacker would compute it
            content["digests"][CARD] = _digest(_canonical(content))
    try:
        text = json.dumps(content)
    except (TypeError, ValueError):
        text = str(content)
    (run_folder / CARD).write_text(text, encoding="utf-8", errors="replace")
    attempt(read_run, run_folder)
    attempt(load, run_folder, "cpu")


@FUZZ
@given(data=st.data(), sealed=st.booleans())
def test_manifests(data: st.DataObject, sealed: bool, store_folder: Path, store: Store) -> None:
    content = data.draw(mutated(json.loads((store.folder / "manifest.json").read_text())) | VALUES)
    if sealed:
        with contextlib.suppress(Exception):
            infos = {m: ModalityInfo.model_construct(**x) for m, x in content["modalities"].items()}
            files = {name: FileInfo.model_construct(**x) for name, x in content["files"].items()}
            content["fingerprint"] = fingerprint(content["labels"], infos, content["splits"], files)
    try:
        text = json.dumps(content)
    except (TypeError, ValueError):
        text = str(content)
    (store_folder / "manifest.json").write_text(text, encoding="utf-8", errors="replace")
    attempt(open_store, store_folder)


@FUZZ
@given(mutations=MUTATIONS, kind=st.sampled_from([CARD, "experiment.yaml"]))
def test_bytes_of_a_run(
    mutations: list[tuple[int, bytes, int]], kind: str, run_folder: Path, trained: TrainedRun
) -> None:
    for name in (CARD, "experiment.yaml"):
        shutil.copy(trained.folder / name, run_folder / name)
    (run_folder / kind).write_bytes(changed((trained.folder / kind).read_bytes(), mutations))
    attempt(read_run, run_folder)


def read_table(file: Path) -> None:
    table = Table(file)
    for column in table.columns:
        assert len(table.text(column)) == len(table)


TABLE = 'id,fold,text,joy\na,train,"Oh, ""no""!",1\nb,valid,so glad,0\nc,test,"two\nlines",2.5\n'
JSON_LINES = '{"id": "a", "labels": ["joy"], "text": "so"}\n{"id": "b", "labels": [], "text": "grün"}\n'
TABLES = {
    ".csv": TABLE.encode(),
    ".tsv": TABLE.replace(",", "\t").encode("utf-16"),
    ".txt": TABLE.replace(",", ";").encode("cp1252"),
    ".jsonl": JSON_LINES.encode(),
}


@FUZZ
@given(
    mutations=MUTATIONS
    | st.lists(
        st.tuples(
            st.integers(0, 200),
            st.sampled_from(
                [b'"', b",", b"\n", b"\r", b"\0", b"\t", b";", b"\xff", b"\xef\xbb\xbf", b"[", b"\\", b"'"]
            ),
            st.integers(0, 2),
        ),
        max_size=6,
    ),
    ending=st.sampled_from(list(TABLES)),
)
def test_tables(
    mutations: list[tuple[int, bytes, int]], ending: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / f"table{ending}"
    file.write_bytes(changed(TABLES[ending], mutations))
    attempt(read_table, file)


def features() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **{"a/text": np.ones((2, 3)), "a/audio": np.zeros((1, 2), np.float32)})
    return stream.getvalue()


FEATURES = features()


@FUZZ
@given(mutations=MUTATIONS)
def test_feature_files(
    mutations: list[tuple[int, bytes, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "features.npz"
    file.write_bytes(changed(FEATURES, mutations))
    attempt(read_features, file)
    attempt(lambda: dict(ArrayFile(file)))


def test_files_that_are_not_changed_are_read(trained: TrainedRun, tmp_path: Path, tiny: Experiment) -> None:
    """The fuzz starts from valid files."""
    assert read_run(trained.folder)[1] == tiny
    (tmp_path / "features.npz").write_bytes(FEATURES)
    assert list(read_features(tmp_path / "features.npz")["a"]) == ["text", "audio"]
    for ending, content in TABLES.items():
        (tmp_path / f"table{ending}").write_bytes(content)
        assert "text" in Table(tmp_path / f"table{ending}").columns
