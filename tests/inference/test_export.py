"""Exported files agree with PyTorch, or are not written."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from carat.config.experiment import load_experiment
from carat.data.store import Store
from carat.data.store.transform import Transform
from carat.inference import export as exporting
from carat.inference.export import KINDS, export
from carat.inference.export.checks import TOLERANCE, random_batches
from carat.inference.export.files import CARD_FILE, PositionalModel, external_errors
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.models.carat.model import Carat
from carat.runs.card import ModalityCard, RunCard
from carat.runs.folder import CARD, ENVIRONMENT, write_experiment
from carat.runs.weights import write_weights
from carat.training.train import TrainedRun
from carat.utils.errors import ExportError
from carat.utils.files import write_json
from tests.conftest import TINY

WIDTHS = {"text": 11, "visual": 5, "audio": 7}


def make_run(folder: Path, widths: dict[str, int] = WIDTHS, **method: Any) -> Path:
    """Write a run with random weights and prototypes, without training."""
    experiment = load_experiment(overrides={**TINY, "method": TINY["method"] | method})
    labels = ["joy", "fear"]
    model = Carat(widths, labels, experiment.method)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape) * 0.5)
        for buffer in model.network.buffers():
            buffer.copy_(torch.randn(buffer.shape))
    folder.mkdir()
    write_json(folder / ENVIRONMENT, {})
    write_experiment(folder, experiment)
    write_weights(folder, model.state_dict())
    transform = Transform(width=13, drop_columns=[2, 3], mean=[0.5] * 11, deviation=[2.0] * 11)
    cards = {m: ModalityCard(width=d, source="") for m, d in widths.items()}
    cards["text"] = ModalityCard(width=11, source="", transform=transform, pad_to=4)
    card = RunCard(
        labels=labels,
        modalities=cards,
        store="",
        fingerprint="",
        epoch=0,
        thresholds={"joy": 0.3, "fear": 0.6},
        validation={},
    )
    write_json(folder / CARD, card.model_dump())
    return folder


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    return make_run(tmp_path / "untrained")


def samples(store: Store, rows: Sequence[int]) -> list[dict[str, NDArray[Any]]]:
    """Features of the present modalities of each row."""
    rows_features = [{m: store.features(m, row) for m in store.modalities} for row in rows]
    return [{m: x for m, x in sample.items() if len(x)} for sample in rows_features]


def feed(inputs: list[dict[str, NDArray[Any]]], card: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Prepare samples as the description of the file specifies, with NumPy only."""
    arrays: dict[str, NDArray[Any]] = {}
    for modality in card["modalities"]:
        name, width = modality["name"], modality["width"]
        max_length = max(1, *(len(sample.get(name, ())) for sample in inputs))
        arrays[name] = np.full((len(inputs), max_length, width), 9, dtype=np.float32)  # padding is not read
        arrays[f"{name}_mask"] = np.zeros((len(inputs), max_length), dtype=bool)
        for i, sample in enumerate(inputs):
            steps = len(sample.get(name, ()))
            arrays[name][i, :steps] = sample.get(name, 0)
            arrays[f"{name}_mask"][i, :steps] = True
    return arrays


def assert_equals_prediction(
    predictor: Predictor,
    inputs: list[dict[str, NDArray[Any]]],
    card: dict[str, Any],
    scores: NDArray[Any],
    attribution: NDArray[Any],
) -> None:
    """Compare outputs of the file, named by its description, with predictions of single samples."""
    assert scores.shape == attribution.shape == (len(inputs), len(card["labels"]))
    assert attribution.dtype == np.int64
    for sample, row, indices in zip(inputs, scores, attribution, strict=True):
        expected = predictor.predict(sample)
        by_label = dict(zip(card["labels"], row.tolist(), strict=True))
        assert by_label == pytest.approx(expected.scores, abs=TOLERANCE)
        assert [name for name, x in by_label.items() if x > card["thresholds"][name]] == expected.labels
        modalities = [card["modalities"][i]["name"] for i in indices]
        assert modalities == list(expected.attribution.values())


@pytest.mark.slow
def test_onnx_file_is_used_without_carat(  # type: ignore[no-untyped-def]
    run, trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    out = tmp_path / "new" / "model.onnx"
    code, printed, err = run("export", trained.folder, out, "--data", store.folder)
    assert code == 0, err
    assert printed == ""
    assert [path.name for path in out.parent.iterdir()] == ["model.onnx"]
    session = onnxruntime.InferenceSession(out)
    card = json.loads(session.get_modelmeta().custom_metadata_map["carat"])
    predictor = load(trained.folder, device="cpu", calibrated=False)
    assert [x.name for x in session.get_inputs()] == list(card["inputs"])
    assert [x.name for x in session.get_outputs()] == ["scores", "attribution"]
    assert card["labels"] == predictor.labels
    assert card["thresholds"] == predictor.card.thresholds
    assert {x["name"]: x["width"] for x in card["modalities"]} == predictor.widths
    assert {x["max_length"] for x in card["modalities"]} == {64}
    assert card["fingerprint"] == store.manifest.fingerprint
    assert len(card["weights"]) == 64
    test_rows = store.indices("test").tolist()
    for rows in (test_rows[:1], test_rows[1:3], test_rows):
        inputs = samples(store, rows)
        assert_equals_prediction(predictor, inputs, card, *session.run(None, feed(inputs, card)))
    m = list(predictor.widths)[1]
    for inputs in ([{m: np.ones((1, predictor.widths[m]))}], [{m: np.ones((64, predictor.widths[m]))}] * 2):
        assert_equals_prediction(predictor, inputs, card, *session.run(None, feed(inputs, card)))
    report = predictor.evaluate(store, "valid").metrics
    assert card["f1"] == {
        "split": "valid",
        "float": {"micro_f1": report.micro_f1, "macro_f1": report.macro_f1},
    }
    assert f"valid, float: micro-F1 {report.micro_f1:.4f}, macro-F1 {report.macro_f1:.4f}" in err
    assert "input audio_mask (B, T ≤ 64) bool\n" in err
    assert "output attribution (B, 6) int64\n" in err
    assert "largest difference from PyTorch's scores: " in err
    assert err.endswith(f"{out.stat().st_size / 1e6:.2f} MB → {out}\n")


def load_program(file: Path) -> tuple[Any, dict[str, Any]]:
    extra = {CARD_FILE: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(file, extra_files=extra).module()
    return module, json.loads(extra[CARD_FILE])


@pytest.mark.slow
def test_program_is_used_without_carat(run, untrained: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    code, _, err = run("export", untrained, tmp_path / "model.pt2")
    assert code == 0, err
    module, card = load_program(tmp_path / "model.pt2")
    predictor = load(untrained, device="cpu")
    for inputs in random_batches(predictor):
        with torch.inference_mode():
            expected = PositionalModel(predictor.model, list(WIDTHS))(*inputs)
            outputs = module(*inputs)
        torch.testing.assert_close(outputs[0], expected[0], rtol=0, atol=TOLERANCE)
        assert torch.equal(outputs[1], expected[1])
    text, *others = card["modalities"]
    assert text["pad_to"] == 4
    assert text["transform"]["drop_columns"] == [2, 3]
    assert [x["transform"] for x in others] == [None, None]
    notes = "\n".join(card["notes"])
    assert "text: features as extracted must be cleaned: remove drop_columns, compute" in notes
    assert "text: pad shorter sequences with zeros to 4 steps, with mask True" in notes
    assert card["f1"] is None
    assert str(Path.cwd()).encode() not in (tmp_path / "model.pt2").read_bytes()


def test_random_batches_cover_all_combinations_and_the_maximum_length(untrained: Path) -> None:
    predictor = load(untrained, device="cpu")
    batches = list(random_batches(predictor))
    masks = [inputs[1::2] for inputs in batches]
    modality_mask = {
        tuple(row) for batch in masks for row in torch.stack([x.any(1) for x in batch], 1).tolist()
    }
    assert len(modality_mask) == 7
    assert {x.shape for x in batches[0][1::2]} == {(1, 1)}
    assert {x.shape[1] for x in batches[1][1::2]} == {64}
    assert [[bool(x.any()) for x in batch].index(False) for batch in masks[3:]] == [0, 1, 2]


class FakeFile:
    """Export format that returns the outputs of PyTorch, altered by `change`."""

    needs: ClassVar[tuple[str, ...]] = ()
    change: ClassVar[Any] = None

    def __init__(self, predictor: Predictor, noise: float = 0) -> None:
        self.predictor, self.noise = predictor, noise

    @classmethod
    def make(cls, predictor: Predictor, inputs: list[str], outputs: list[str]) -> FakeFile:
        return cls(predictor)

    def write(self, file: Path, card: str) -> None:
        file.write_text(card)

    def open(self, file: Path) -> Any:
        assert file.is_file()
        model = PositionalModel(self.predictor.model, list(self.predictor.widths))
        change = type(self).change or (lambda scores, attribution: (scores, attribution))

        @torch.inference_mode()
        def score(inputs: Sequence[Tensor]) -> Any:
            scores, attribution = (x.numpy().copy() for x in model(*inputs))
            return change(scores + np.float32(self.noise), attribution)

        return score

    def quantize(self, scratch: Path) -> FakeFile:
        assert scratch.is_file()
        return FakeFile(self.predictor, noise=0.25)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeFile]:
    monkeypatch.setattr(FakeFile, "change", None)
    for kind in KINDS:
        monkeypatch.setitem(KINDS, kind, FakeFile)
    return FakeFile


def raise_error(scores: NDArray[Any], attribution: NDArray[Any]) -> Any:
    raise RuntimeError("no kernel\nin this runtime")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, a: (s + 3 * np.float32(TOLERANCE), a), r"by up to 3\.\de-05, expected at most 1e-05"),
        (lambda s, a: (s * np.nan, a), "differ from PyTorch by up to nan"),
        (lambda s, a: (s, 1 - a), "% of the exported file's attribution differs"),
        (raise_error, r"cannot score inputs of shapes \(1, 1, 11\), \(1, 1, 5\), \(1, 1, 7\) \(no kernel\)"),
    ],
)  # fmt: skip
def test_different_outputs_are_rejected_without_writing_a_file(
    fake: type[FakeFile], untrained: Path, tmp_path: Path, change: Any, message: str
) -> None:
    fake.change = staticmethod(change)
    out = tmp_path / "out" / "model.onnx"
    with pytest.raises(ExportError, match=message) as refused:
        export(untrained, out)
    assert "\n" not in str(refused.value)
    assert not list(out.parent.iterdir())
    out.write_text("older")
    with pytest.raises(ExportError, match=message):
        export(untrained, out, overwrite=True)
    assert out.read_text() == "older"
    fake.change = None
    assert export(untrained, out, overwrite=True).largest_difference == 0
    assert json.loads(out.read_text())["int8"] is False


def test_different_labels_are_rejected_without_writing_a_file(
    fake: type[FakeFile], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    fake.change = lambda scores, attribution: (1 - scores, attribution)
    with pytest.raises(
        ExportError, match=r"valid: the exported file predicts other labels .* for \d+ of \d+"
    ):
        export(trained.folder, tmp_path / "model.pt2", store=store.folder)
    assert not list(tmp_path.iterdir())


def test_f1_of_int8_is_logged_and_stored(  # type: ignore[no-untyped-def]
    run, fake: type[FakeFile], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "model.onnx"
    code, _, err = run("export", trained.folder, out, "--int8", "--data", store.folder, "--split", "test")
    assert code == 0, err
    f1 = json.loads(out.read_text())["f1"]
    expected = load(trained.folder, device="cpu").evaluate(store, "test").metrics
    assert f1["split"] == "test"
    assert f1["float"] == {"micro_f1": expected.micro_f1, "macro_f1": expected.macro_f1}
    assert f1["int8"] != f1["float"]
    assert f"test, float: micro-F1 {expected.micro_f1:.4f}" in err
    assert f"test, int8: micro-F1 {f1['int8']['micro_f1']:.4f}" in err
    assert "largest difference from PyTorch's scores: 2.5e-01" in err


def test_invalid_arguments_are_rejected(
    run, fake: type[FakeFile], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    unfinished, existing = tmp_path / "unfinished", tmp_path / "existing.onnx"
    shutil.copytree(trained.folder, unfinished)
    (unfinished / CARD).unlink()
    existing.write_text("mine")
    other_run = make_run(tmp_path / "other_run")
    folder, out = trained.folder, tmp_path / "model.onnx"
    for arguments, message in [
        ((folder, tmp_path / "model.pb"), "model.pb: unknown ending '.pb'; use .onnx, .pt2"),
        ((folder, tmp_path / "model"), "model: unknown ending ''; use .onnx, .pt2"),
        ((folder, existing), "existing.onnx: exists already; --overwrite replaces it"),
        ((folder, out, "--int8"), "--int8 needs --data to measure the loss of F1"),
        (
            (folder, tmp_path / "m.pt2", "--int8", "--data", store.folder),
            "m.pt2: --int8 is supported for .onnx only",
        ),
        ((unfinished, out), "unfinished: the training did not finish"),
        ((tmp_path / "none", out), "none: no such run"),
        ((folder, out, "--data", tmp_path / "none"), "none: no such store"),
        ((folder, out, "--data", store.folder, "--split", "vald"), "no split 'vald'"),
        ((other_run, out, "--data", store.folder), "was trained on joy, fear"),
    ]:
        code, _, err = run("export", *arguments)
        assert code == 2
        assert message in err
        assert err.startswith("carat: error: ")
        assert err.count("\n") == 1
    assert existing.read_text() == "mine"
    assert not list(tmp_path.glob(".*"))
    assert not out.exists()


def test_missing_packages_are_reported_with_their_extra(
    trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting.importlib.util, "find_spec", lambda name: None)
    message = r"needs onnx, onnxscript, onnxruntime: pip install 'carat-emotion\[export\]'"
    with pytest.raises(ExportError, match=message):
        export(trained.folder, tmp_path / "model.onnx")


def test_duplicate_input_names_are_rejected(tmp_path: Path) -> None:
    for name in ("text_mask", "scores"):
        folder = make_run(tmp_path / name, {"text": 11, name: 3})
        with pytest.raises(ExportError, match=f"two inputs or outputs would be named '{name}'"):
            export(folder, tmp_path / "model.pt2")


def test_external_errors_are_one_line_and_warnings_are_suppressed() -> None:
    with external_errors("a"):
        warnings.warn("the exporter will change", FutureWarning, stacklevel=1)
    with pytest.raises(ExportError, match=r"^b \(ValueError\)$"), external_errors("b"):
        raise ValueError
    with pytest.raises(ExportError, match=r"^inner$"), external_errors("c"):
        raise ExportError("inner")


def test_failed_export_is_reported(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(torch.export, "export", fail)
    with pytest.raises(
        ExportError, match=r"untrained: PyTorch .* cannot export the model \(no such operation\)"
    ):
        export(untrained, tmp_path / "out" / "model.pt2")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_int8_on_a_real_model(trained: TrainedRun, store: Store, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    exported = export(trained.folder, tmp_path / "model.onnx", int8=True, store=store.folder)
    graph = onnx.load(exported.path).graph
    quantized = [x for x in graph.initializer if x.data_type == onnx.TensorProto.UINT8 and len(x.dims) == 2]
    assert len(quantized) == 3 * 6 + 2  # encoders and label attention of each modality, aggregation
    assert TOLERANCE < exported.largest_difference < 0.05
    expected = load(trained.folder, device="cpu").evaluate(store, "valid").metrics
    assert exported.f1["float"] == {"micro_f1": expected.micro_f1, "macro_f1": expected.macro_f1}
    assert exported.f1["int8"]["micro_f1"] == pytest.approx(expected.micro_f1, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [".onnx", ".pt2"])
@pytest.mark.parametrize(
    ("widths", "method"),
    [
        pytest.param(WIDTHS, {"alignment": {"modalities": ["visual", "audio"], "steps": 13}}, id="aligned"),
        pytest.param({"text": 11}, {}, id="one modality"),
        pytest.param({"text": 11, "eye-gaze": 2, "visual": 5, "audio": 7}, {"label_wise": False}, id="four"),
        pytest.param(WIDTHS, {"levels": 1, "prototypes": False, "aggregation": False}, id="parts off"),
        pytest.param(WIDTHS, {"levels": 0, "encoder": {"max_lengths": {"visual": 1, "audio": 2}}}, id="1, 2"),
    ],
)  # fmt: skip
def test_export_of_all_model_variants(
    tmp_path: Path, kind: str, widths: dict[str, int], method: dict[str, Any]
) -> None:
    pytest.importorskip("onnxruntime")
    encoder = TINY["method"]["encoder"] | method.get("encoder", {})  # type: ignore[index]
    folder = make_run(tmp_path / "run", widths, **method | {"encoder": encoder})
    exported = export(folder, tmp_path / f"model{kind}")
    assert exported.largest_difference <= TOLERANCE
    assert list(exported.inputs) == [name for m in widths for name in (m, f"{m}_mask")]
