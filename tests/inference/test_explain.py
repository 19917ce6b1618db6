"""Figures and their data agree with the run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
import yaml

from carat.config.experiment import load_experiment
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.inference.explain.attention import draw_attention, find_rows, step_words
from carat.inference.explain.collect import SplitOutputs, collect_outputs
from carat.inference.explain.contributions import modality_contributions
from carat.inference.explain.explanation import explain, select_samples
from carat.inference.explain.latents import sample_points, silhouettes
from carat.inference.explain.sensitivity import draw_sensitivity, read_sweep
from carat.inference.loading import load
from carat.inference.predictor import Predictor
from carat.models.layers.packing import pack_batch
from carat.training.train import TrainedRun, train
from carat.utils.errors import CaratError, ConfigError, DataError, RunError


@pytest.fixture(scope="module")
def predictor(trained: TrainedRun) -> Predictor:
    return load(trained.folder)


@pytest.fixture(scope="module")
def outputs(predictor: Predictor, store: Store) -> SplitOutputs:
    collected = collect_outputs(predictor, store, "train", keep=41, seed=0)
    assert collected is not None
    return collected


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_collected_outputs_equal_predictions(
    outputs: SplitOutputs, predictor: Predictor, store: Store
) -> None:
    by_id = dict(predictor.predict_store(store, "train"))
    for i, row in enumerate(outputs.rows.tolist()):
        prediction = by_id[str(store.ids[row])]
        names = [n for n, present in zip(outputs.labels, outputs.predicted[i], strict=True) if present]
        assert names == prediction.labels
        assert [outputs.modalities[m] for m in outputs.attribution[i]] == list(
            prediction.attribution.values()
        )
        assert outputs.truth[i].tolist() == (store.labels[row] > 0).tolist()
        np.testing.assert_allclose(outputs.weights[i].sum(0), 1, atol=1e-5)
        assert not outputs.weights[i][~outputs.modality_mask[i]].any()
        assert (outputs.weights[i].argmax(0) == outputs.attribution[i]).all()
    assert len(outputs.features) == len(outputs.latents) == len(outputs.kept) == 41
    present = outputs.modality_mask[outputs.kept]
    np.testing.assert_allclose(np.linalg.norm(outputs.latents, axis=-1)[present], 1, atol=1e-5)


def test_contributions_by_hand(outputs: SplitOutputs) -> None:
    wins, weights, samples = modality_contributions(outputs)
    complete = [i for i in range(len(outputs.rows)) if outputs.modality_mask[i].all()]
    assert samples == len(complete) < len(outputs.rows)
    for m in range(3):
        for label in range(6):
            fraction = sum(outputs.attribution[i, label] == m for i in complete) / len(complete)
            assert wins[m, label] == pytest.approx(fraction)
            mean = sum(outputs.weights[i, m, label] for i in complete) / len(complete)
            assert weights[m, label] == pytest.approx(mean, abs=1e-5)


def test_points_cover_present_modalities_and_both_polarities(outputs: SplitOutputs) -> None:
    points = sample_points(outputs, 180, seed=0)
    assert 36 <= len(points.index) <= 180
    for (i, m, label), present, u in zip(
        points.index.tolist(), points.present, points.spaces["before"], strict=True
    ):
        assert outputs.modality_mask[outputs.kept[i], m]
        assert outputs.truth[outputs.kept[i], label] == present
        assert (u == outputs.features[i, m, label]).all()
    assert len(np.unique(points.index, axis=0)) == len(points.index)
    counts = np.unique(np.c_[points.index[:, 1:], points.present], axis=0, return_counts=True)[1]
    assert counts.max() == 5


def test_silhouette_of_separated_classes_is_one(outputs: SplitOutputs) -> None:
    points = sample_points(outputs, 180, seed=0)
    classes = points.index[:, 1] * 12 + points.index[:, 2] * 2 + points.present
    points.spaces["after"] = np.eye(36, dtype=np.float32)[classes]
    assert silhouettes(points)["after"] == pytest.approx(1, abs=1e-5)
    assert silhouettes(points)["before"] < 0.9


def test_attention_equals_that_of_the_network(predictor: Predictor, store: Store, tmp_path: Path) -> None:
    row = next(r for r in range(len(store)) if set(store[r].features) == {"text", "audio"})
    svg, table = draw_attention(predictor, store, row, tmp_path)
    ElementTree.parse(svg)
    model: Any = predictor.model.get_submodule("network")
    for m in ("text", "audio"):
        x = torch.from_numpy(np.array(store[row].features[m]))[None]
        mask = torch.ones(x.shape[:2], dtype=torch.bool)  # nothing to sort or trim
        with torch.no_grad():
            hidden = model.encoder[m](model.input_norm[m](x), pack_batch(mask))
            expected = model.label_attention[m].score(hidden)[0].softmax(0)
        rows = [line for line in read(table) if line["modality"] == m]
        actual = np.array([[float(line[name]) for name in predictor.labels] for line in rows])
        np.testing.assert_allclose(actual, expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(actual.sum(0), 1, atol=1e-5)
    assert {line["modality"] for line in read(table)} == {"text", "audio"}


def test_steps_of_word_vectors_are_labeled_with_words(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "s", ["sad"], {"text": "glove:1", "audio": "a"}, ["train"]) as writer:
        features = {"text": np.ones((4, 2)), "audio": np.ones((4, 2))}
        writer.append("x", "train", [1], features, transcript="I don't, no")
    store = open_store(tmp_path / "s")
    assert step_words(store, 0, "text", 4) == ["i", "do", "n't", ","]
    assert step_words(store, 0, "audio", 4) is None
    assert step_words(store, 0, "text", 6) is None


def test_exactly_predicted_samples_are_selected_first(outputs: SplitOutputs) -> None:
    rows = select_samples(outputs)
    assert len(rows) == 3
    best = int(np.flatnonzero(outputs.rows == rows[0])[0])
    exact = (outputs.predicted == outputs.truth).all(1)
    assert exact[best] == exact.any()


def test_explain_writes_all_figures(  # type: ignore[no-untyped-def]
    run, trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    arguments = ["explain", trained.folder, "--data", store.folder, "--out", tmp_path / "o", "--points", 60]
    code, _, err = run(*arguments, "--split", "valid")
    assert code == 0, err
    names = {path.name for path in (tmp_path / "o").iterdir()}
    figures = ("latents", "contributions", "co_occurrence")
    assert names >= {f"{name}.{kind}" for name in figures for kind in ("svg", "csv")}
    assert len([name for name in names if name.startswith("attention_")]) == 6
    assert all(name in err for name in names)
    for file in (tmp_path / "o").glob("*.svg"):
        text = "".join(ElementTree.parse(file).getroot().itertext())
        assert file.stat().st_size > 3000
        assert "Figure" not in text
    rows = store.indices("valid")
    truth = np.asarray(store.labels)[rows]
    for line in read(tmp_path / "o" / "co_occurrence.csv"):
        i, j = (store.label_names.index(line[key]) for key in ("label", "other"))
        assert int(line["truth"]) == (truth[:, i] & truth[:, j]).sum()
    code, _, err = run(*arguments)
    assert code == 2
    assert "holds an explanation already; --overwrite replaces it" in err
    (tmp_path / "o" / "notes.txt").write_text("precious")
    code, _, err = run(*arguments, "--overwrite")
    assert code == 2
    assert "holds 'notes.txt', which is not part of a carat explanation" in err


@pytest.mark.slow
def test_figures_are_reproducible(trained: TrainedRun, store: Store, tmp_path: Path) -> None:
    for name in ("a", "b"):
        explain(trained.folder, store.folder, tmp_path / name, samples=[str(store.ids[5])], points=40)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 8
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_unknown_sample_is_rejected(store: Store) -> None:
    with pytest.raises(DataError, match=r"no sample 's00000'; did you mean 's000\d\d\d'"):
        find_rows(store, ["s00000"])


def write_sweep(trained: TrainedRun, folder: Path, settings: list[tuple[float, float]]) -> None:
    """Write copies of a run that differ in the weight of the contrastive loss and in validation micro-F1."""
    for i, (weight, score) in enumerate(settings):
        shutil.copytree(
            trained.folder, folder / f"r{i}", ignore=shutil.ignore_patterns("checkpoints", "logs")
        )
        file = folder / f"r{i}" / "experiment.yaml"
        experiment = yaml.safe_load(file.read_text())
        experiment["method"]["weights"]["contrast"] = weight
        file.write_text(yaml.safe_dump(experiment))
        card = json.loads((folder / f"r{i}" / "run.json").read_text())
        card["validation"]["micro_f1"] = score
        del card["digests"]  # the experiment was changed
        (folder / f"r{i}" / "run.json").write_text(json.dumps(card))


def test_sensitivity_by_hand(trained: TrainedRun, tmp_path: Path) -> None:
    write_sweep(trained, tmp_path / "sweep", [(0.1, 0.5), (1.0, 0.7), (0.1, 0.6), (10.0, 0.4)])
    (tmp_path / "sweep" / "r3" / "weights.safetensors").unlink()  # unfinished
    svg, table = draw_sensitivity(read_sweep(tmp_path / "sweep", trained.card.fingerprint), tmp_path)
    ElementTree.parse(svg)
    actual = [
        (x["setting"], float(x["value"]), int(x["runs"]), x["mean_validation_micro_f1"]) for x in read(table)
    ]
    assert actual == [
        ("method.weights.contrast", 0.1, 2, "0.55"),
        ("method.weights.contrast", 1.0, 1, "0.7"),
    ]
    for fingerprint, folder, message in [
        ("another", tmp_path / "sweep", "0 finished runs on the same data"),
        (trained.card.fingerprint, tmp_path / "none", "no such folder"),
        (trained.card.fingerprint, trained.folder, "1 finished runs on the same data; expected at least two"),
    ]:
        with pytest.raises(RunError, match=message):
            read_sweep(folder, fingerprint)


def test_store_with_other_labels_is_rejected(trained: TrainedRun, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", "s", ["sad"], {"text": "t"}, ["test"]) as writer:
        writer.append("x", "test", [1], {"text": np.ones((3, 24))})
    with pytest.raises(CaratError, match="labels sad, but the run"):
        explain(trained.folder, tmp_path / "s", tmp_path / "o")
    assert not (tmp_path / "o").exists()


def test_method_without_label_features_is_rejected(store: Store, tmp_path: Path) -> None:
    trained = train(load_experiment(overrides={"method": "prior"}), store, tmp_path / "run")
    with pytest.raises(ConfigError, match="prior has no label-specific features"):
        explain(trained.folder, store.folder, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()
