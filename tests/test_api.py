"""The public API: its names, its documentation, its examples, and what its objects are in a notebook."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest

import carat
from carat.data.store import Store
from carat.studies import ablation
from carat.training.train import TrainedRun
from carat.utils.errors import CaratError, ConfigError, DataError
from tests.data import field_files
from tests.features.fakes import use_fakes, write_clips

PUBLIC = [name for name in carat.__all__ if name != "__version__"]
FUNCTIONS = [name for name in PUBLIC if not isinstance(getattr(carat, name), type)]
CLASSES = [name for name in PUBLIC if isinstance(getattr(carat, name), type)]
SLOW = {"ablate", "export", "sweep"}
"""Whose examples take long."""
ELSEWHERE = {"export_without_base", "push", "register_method"}
"""Whose examples are parts of a program, or need a fine-tuned run or a server; tests/config/test_methods.py,
tests/runs/test_weights.py and tests/runs/test_hub.py have whole ones."""


def test_names_are_listed_once_and_come_from_where_they_are_defined() -> None:
    assert len(carat.__all__) == len(set(carat.__all__))
    assert {*carat._HOMES} | {"__version__"} == set(carat.__all__)
    for name in PUBLIC:
        value = getattr(carat, name)
        assert value.__name__ == name
        assert value.__module__.startswith(carat._HOMES[name]), name
    assert re.match(r"\d+\.\d+", carat.__version__)


def test_importing_carat_imports_nothing_heavy() -> None:
    heavy = ("torch", "numpy", "lightning", "pandas", "sklearn", "matplotlib", "pydantic", "rich", "optuna")
    code = f"import sys, carat; carat.__all__; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_using_a_run_needs_no_lightning_and_no_pandas(trained: TrainedRun) -> None:
    code = (
        "import sys, carat; p = carat.load(sys.argv[1]); repr(p), p._repr_html_(); "
        "print([m for m in ('lightning', 'pandas', 'sklearn', 'optuna') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(trained.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_typed_and_documented(name: str) -> None:
    function = getattr(carat, name)
    signature = inspect.signature(function)
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
    assert signature.return_annotation not in (inspect.Signature.empty, "Any", "None")
    doc = inspect.getdoc(function) or ""
    sections = sections_of(doc)
    summary = doc.split("\n\n")[0]
    assert summary.endswith(".")
    assert "\n" not in summary or len(summary.splitlines()) <= 2
    assert list(sections)[:3] == ["Args", "Returns", "Raises"], list(sections)
    described = re.findall(r"^([\w, ]+): ", sections["Args"], re.MULTILINE)
    assert [x for names in described for x in names.split(", ")] == list(signature.parameters)
    assert "Example" in sections or ">>>" in doc


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_documented(name: str) -> None:
    kind = getattr(carat, name)
    doc = inspect.getdoc(kind) or ""
    assert doc.split("\n\n")[0].rstrip().endswith(".")
    for method, value in vars(kind).items():
        if not method.startswith("_") and inspect.isfunction(value):
            assert inspect.getdoc(getattr(kind, method)), f"{name}.{method}"
    sections = sections_of(doc)
    if "__init__" in vars(kind) and not is_dataclass(kind):
        assert "Args" in sections
    if "Args" in sections:
        described = re.findall(r"^([\w, ]+): ", sections["Args"], re.MULTILINE)
        assert described == list(inspect.signature(kind).parameters)


def test_types_of_functions_resolve() -> None:
    for name in ("open_store", "make_synthetic", "load", "train", "export", "explain", "import_corpus"):
        assert "return" in get_type_hints(getattr(carat, name))


def sections_of(doc: str) -> dict[str, str]:
    """Text of each section of a docstring, without its indentation."""
    parts = re.split(r"^(Args|Returns|Raises|Source|Example):\s*", doc, flags=re.MULTILINE)
    texts = (textwrap.dedent("    " + text if "\n    " in text else text) for text in parts[2::2])
    return dict(zip(parts[1::2], texts, strict=True))


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what examples name: demo-store, demo-run, a recipe and a data file of the field."""
    folder = tmp_path_factory.mktemp("examples")
    store = carat.make_synthetic(folder / "demo-store", samples=150)
    carat.train({"preset": "small", "training": {"epochs": 1}}, store, folder / "demo-run")
    shutil.copytree(folder / "demo-run", folder / "second-run")
    ids = [f"s{i}" for i in range(9)]
    splits = ["train", "train", "train", "valid", "valid", "valid", "test", "test", "test"]
    rows = "".join(f"{id},{split},{i % 2}\n" for i, (id, split) in enumerate(zip(ids, splits, strict=True)))
    (folder / "table.csv").write_text(f"id,split,happy\n{rows}")
    np.savez(folder / "audio.npz", **{id: np.ones((2 + i, 3)) for i, id in enumerate(ids)})
    (folder / "my-recipe.yaml").write_text(
        "name: mine\ntable: table.csv\nid: id\nsplit: split\nlabels: {columns: [happy]}\n"
        "modalities:\n  audio: {source: array, file: audio.npz, column: id}\n"
    )
    field_files.aligned(folder / "train_valid_test.pt")
    (folder / "corpora.yaml").write_text("name: all\ncorpora: {first: {store: demo-store}}\n")
    return folder


def examples() -> Iterator[Any]:
    for name in sorted(set(PUBLIC) - ELSEWHERE):
        if "\nExample:" in (inspect.getdoc(getattr(carat, name)) or ""):
            yield pytest.param(name, marks=pytest.mark.slow if name in SLOW else [])


@pytest.mark.parametrize("name", list(examples()))
def test_examples_run(
    name: str, workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_this_process: list[Any]
) -> None:
    monkeypatch.chdir(shutil.copytree(workplace, tmp_path / "place"))
    every = ablation.variants
    monkeypatch.setattr(ablation, "variants", lambda *given: dict(list(every(*given).items())[:2]))
    code = sections_of(inspect.getdoc(getattr(carat, name)) or "")["Example"]
    if "_frame" in code:
        pytest.importorskip("pandas")
    if "interview.mp4" in code:
        write_clips(tmp_path / "place")
        use_fakes(monkeypatch, tmp_path)
        Path("clips", "interview1.mp4").rename("interview.mp4")
    names: dict[str, Any] = {"carat": carat}
    *statements, last = ast.parse(code).body
    exec(compile(ast.Module(statements, []), name, "exec"), names)
    assert isinstance(last, ast.Expr)
    assert eval(compile(ast.Expression(last.value), name, "eval"), names) is not None


@pytest.mark.slow
def test_runs_and_stores_are_taken_as_objects_or_folders(
    trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    report = carat.evaluate(trained.folder, store.folder, split="valid")
    predictor = carat.load(trained)
    for run in (str(trained.folder), trained, predictor):
        for data in (str(store.folder), store):
            again = carat.evaluate(run=run, store=data, split="valid")
            assert again.to_json() == report.to_json()
    assert carat.open_store(store) is store
    assert carat.open_store(str(store.folder)).manifest == store.manifest
    made = carat.export(trained, out=tmp_path / "model.pt2", store=store, split="valid")
    assert made.f1["float"]["micro_f1"] == pytest.approx(report.metrics.micro_f1)
    files = carat.explain(predictor, store, tmp_path / "pictures", points=30, samples=[str(store.ids[5])])
    assert all(file.is_file() for file in files)
    with pytest.raises(DataError, match="no split 'tset'; did you mean 'test'"):
        carat.evaluate(trained, store, "tset")


def test_evaluate_uses_a_predictor_as_it_is(
    trained: TrainedRun, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = carat.load(trained, precision="bf16")
    monkeypatch.setattr("carat.inference.evaluate.load", None)
    report = carat.evaluate(predictor, store)
    assert report.to_json() == predictor.evaluate(store, "test").to_json()


def test_import_corpus_takes_sources_by_name(workplace: Path, tmp_path: Path) -> None:
    file = workplace / "train_valid_test.pt"
    store = carat.import_corpus(format="mosei-aligned", file=file, out=tmp_path / "a", keep_padding=True)
    assert list(store.manifest.splits) == ["train", "valid", "test"]
    assert not any("stripped" in line for line in store.manifest.modalities["text"].cleaning)
    with pytest.raises(ConfigError, match=r"unknown source 'label'; did you mean 'labels'\?"):
        carat.import_corpus("mmsa", file, tmp_path / "b", sources={"label": "x.csv"})
    with pytest.raises(ConfigError, match=r"format mosei-aligned does not .* --labels"):
        carat.import_corpus("mosei-aligned", file, tmp_path / "b", sources={"labels": "x.csv"})
    with pytest.raises(ConfigError, match="format mmsa needs --labels"):
        carat.import_corpus("mmsa", file, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_run_is_described_in_two_lines(trained: TrainedRun) -> None:
    card = trained.card
    shown = f"carat, best epoch {card.epoch}, validation micro-F1 {card.validation['micro_f1']:.4f}"
    assert repr(trained) == f"TrainedRun({str(trained.folder)!r},\n  {shown})"
    predictor = carat.load(trained)
    first, second = repr(predictor).splitlines()
    assert first == f"Predictor({str(trained.folder)!r},"
    assert second == f"  {shown}; text, visual, audio → happy, sad, anger, …)"
    many = predictor.card.model_copy(update={"labels": [f"label{i}" for i in range(99)]})
    wide = carat.Predictor(predictor.folder, many, predictor.experiment, predictor.model)
    assert len(repr(wide).splitlines()) == 2
    assert all(len(line) < 110 for line in repr(wide).splitlines()[1:])


def test_html_of_runs_and_stores_is_escaped(trained: TrainedRun, store: Store) -> None:
    predictor = carat.load(trained)
    for thing in (trained, predictor, store):
        assert thing._repr_html_().count("<table>") == thing._repr_html_().count("</table>") == 1
    assert str(trained.folder) in trained._repr_html_()
    hostile = trained.card.model_copy(
        update={"labels": ["<script>alert(1)</script>"], "notes": ["a & b", "<img src=x>"], "store": "<b>"}
    )
    run = TrainedRun(trained.folder, hostile, trained.experiment)
    used = carat.Predictor(trained.folder, hostile, trained.experiment, predictor.model)
    manifest = store.manifest.model_copy(update={"labels": ["<script>"], "notes": ["<img src=x>"]})
    opened = Store(store.folder, manifest)
    for page in (run._repr_html_(), used._repr_html_(), opened._repr_html_()):
        assert "<script" not in page
        assert "<img" not in page
        assert "<b>" not in page
        assert "&lt;script&gt;" in page


def test_without_pandas_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pandas":
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    prediction = carat.Prediction({"happy": 0.5}, [], {})
    message = "^to_frame needs pandas, which is not installed: pip install pandas$"
    for call in (prediction.to_frame, lambda: carat.to_frame([prediction])):
        with pytest.raises(CaratError, match=message):
            call()
