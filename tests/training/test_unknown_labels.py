"""A store of two corpora with unknown labels on its way through training and everything after it."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray

import carat
from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.config.methods import METHODS
from carat.data.store import Store
from carat.evaluation.metrics import compute_metrics
from carat.inference.explain.collect import collect_outputs
from carat.inference.explain.explanation import explain, select_samples
from carat.inference.explain.latents import sample_points
from carat.inference.export import export
from carat.runs.folder import METRICS, WEIGHTS
from carat.studies import ablation
from carat.studies.leaderboard.comparison import compare
from carat.studies.sweep import sweep
from carat.training.distributed import SINGLE_PROCESS
from carat.training.launcher import launch
from carat.training.train import TrainedRun, train
from carat.utils.errors import DataError
from tests.studies.test_ablation import three_variants
from tests.training.test_distributed import on, record
from tests.training.test_resume import killed_at
from tests.unknown import draw_known, rewrite


@pytest.fixture(scope="module")
def known(store: Store) -> NDArray[np.bool_]:
    return draw_known(store)


CORPORA = ["small" if i % 4 == 0 else "large" for i in range(211)]


@pytest.fixture(scope="module")
def partial(store: Store, known: NDArray[np.bool_], tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The small store with a third of its labels unknown, as two corpora."""
    return rewrite(store, tmp_path_factory.mktemp("stores") / "partial", known, CORPORA)


@pytest.fixture
def drawn_and_started(tiny: Experiment, run_on_partial: TrainedRun) -> Experiment:
    """Samples drawn by corpus, and weights of another run to start from."""
    changes = {
        "data": {"sampling": {"weights": {"large": 0.5}}},
        "training": {"init_from": str(run_on_partial.folder), "epochs": 1},
    }
    return load_experiment(overrides=merge(tiny.model_dump(), changes))


@pytest.fixture(scope="module")
def run_on_partial(partial: Store, tiny: Experiment, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    """A finished run; tests must not change it."""
    return train(tiny, partial, tmp_path_factory.mktemp("runs") / "partial")


def measured(run: TrainedRun, store: Store, known: NDArray[np.bool_], split: str) -> Any:
    """Metrics of a run on the known labels of the complete store."""
    rows, scores, labels = carat.load(run.folder, "cpu", calibrated=False).score(store, split)
    predicted = scores > np.array(list(run.card.thresholds.values()))
    return compute_metrics(scores, predicted, np.where(known[rows], labels, np.nan), store.label_names)


def test_scores_and_evaluation(
    run_on_partial: TrainedRun, partial: Store, store: Store, known: NDArray[np.bool_]
) -> None:
    report = carat.evaluate(run_on_partial, partial, device="cpu", calibrated=False)
    expected = measured(run_on_partial, store, known, "test")
    assert math.isfinite(report.metrics.micro_f1)
    assert report.metrics.micro_f1 == expected.micro_f1
    assert report.metrics.labels == expected.labels
    assert report.metrics.notes[0].endswith("labels are known: metrics are over these")
    validation = measured(run_on_partial, store, known, "valid")
    for name in ("micro_f1", "macro_f1", "accuracy", "lrap"):
        assert run_on_partial.card.validation[name] == pytest.approx(getattr(validation, name))
    assert any(note.startswith("split 'train': ") for note in run_on_partial.card.notes)
    everything = carat.evaluate(run_on_partial, store, device="cpu", calibrated=False)
    assert everything.metrics.micro_f1 != report.metrics.micro_f1
    assert not any("known" in note for note in everything.metrics.notes)


def test_reports_on_the_command_line(
    run: Any, run_on_partial: TrainedRun, partial: Store, store: Store
) -> None:
    code, out, _ = run("evaluate", run_on_partial.folder, "--data", partial.folder)
    assert code == 0
    happy = carat.evaluate(run_on_partial, partial, device="cpu").metrics.labels["happy"]
    assert f" {happy.positives}/{happy.known} " in out
    assert "Corpora" in out
    assert "labels are known: metrics are over these" in out
    code, out, _ = run("evaluate", run_on_partial.folder, "--data", store.folder)
    assert code == 0
    assert "known" not in out
    code, out, _ = run("data", "check", partial.folder)
    assert "unknown labels" in out
    code, out, _ = run("data", "info", partial.folder)
    assert code == 0
    assert "known" in out


def test_what_unknown_labels_hide_is_nowhere_in_the_store(
    partial: Store, store: Store, known: NDArray[np.bool_], tmp_path: Path
) -> None:
    flipped = rewrite(store, tmp_path / "complete", np.ones_like(known))
    flipped._arrays["labels.npy"] = np.where(known, store.labels, 1 - store.labels).astype(np.uint8)
    again = rewrite(flipped, tmp_path / "again", known, CORPORA)
    assert again.manifest.fingerprint == partial.manifest.fingerprint
    assert flipped.manifest.fingerprint == store.manifest.fingerprint


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method(
    name: str, partial: Store, store: Store, known: NDArray[np.bool_], tmp_path: Path
) -> None:
    changes = {"training": {"epochs": 1, "accelerator": "cpu"}, "method": {"name": name}}
    trained = train(load_experiment(preset="small", overrides=changes), partial, tmp_path / "run")
    report = carat.evaluate(trained, partial, device="cpu")
    assert math.isfinite(report.metrics.macro_f1)
    assert report.metrics.micro_f1 == measured(trained, store, known, "test").micro_f1


def test_labels_without_a_known_value_are_refused(store: Store, tiny: Experiment, tmp_path: Path) -> None:
    known = draw_known(store)
    known[store.indices("train"), 3] = False
    path = rewrite(store, tmp_path / "s", known)
    with pytest.raises(DataError, match="no training sample has a known label 'surprise', so that it cannot"):
        train(tiny, path, tmp_path / "run")
    known = draw_known(store)
    known[store.indices("valid")] = False
    with pytest.raises(DataError, match="no sample of split 'valid' has a known label"):
        train(tiny, rewrite(store, tmp_path / "t", known), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_splits_without_known_labels_are_not_measured(
    run_on_partial: TrainedRun, store: Store, tiny: Experiment, tmp_path: Path
) -> None:
    known = draw_known(store)
    known[store.indices("test")] = False
    unmeasured = rewrite(store, tmp_path / "s", known)
    message = "no sample of split 'test' has a known label to measure"
    with pytest.raises(DataError, match=message):
        carat.evaluate(run_on_partial, unmeasured, device="cpu")
    with pytest.raises(DataError, match=message):
        compare(unmeasured, tmp_path / "out", methods=["prior"], seeds=1)
    with pytest.raises(DataError, match=message):
        ablation.ablate(tiny, unmeasured, tmp_path / "out", seeds=1)
    assert not (tmp_path / "out").exists()


def test_label_powerset_needs_complete_samples(store: Store, tmp_path: Path) -> None:
    known = np.ones(store.labels.shape, dtype=bool)
    known[::2, 0] = known[1::2, 1] = False
    partial = rewrite(store, tmp_path / "s", known)
    experiment = load_experiment(overrides={"method": {"name": "lp"}, "training": {"accelerator": "cpu"}})
    with pytest.raises(
        DataError, match="needs training samples with all labels known, and there are none; use"
    ):
        train(experiment, partial, tmp_path / "run")


@pytest.mark.parametrize("as_drawn", [False, True])
def test_resume(
    as_drawn: bool,
    partial: Store,
    tiny: Experiment,
    drawn_and_started: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {"training": {"checkpoint_every": 3, "epochs": 4}}
    experiment = load_experiment(
        overrides=merge((drawn_and_started if as_drawn else tiny).model_dump(), changes)
    )
    whole = train(experiment, partial, tmp_path / "whole")
    assert killed_at(7, partial, experiment, tmp_path / "run", monkeypatch)
    resumed = train(experiment, partial, tmp_path / "run")
    assert (resumed.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()
    assert (resumed.folder / METRICS).read_text() == (whole.folder / METRICS).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("as_drawn", [False, True])
def test_two_processes_learn_what_one_learns(
    as_drawn: bool, partial: Store, tiny: Experiment, drawn_and_started: Experiment, tmp_path: Path
) -> None:
    """Losses are over the known labels of the whole batch, not of each process's share."""
    changes = {
        "method": {"encoder": {"dropout": 0.0}},
        "data": {"batch_size": 21},
        "training": {"epochs": 1, "modality_dropout": 0.2},
    }
    experiment = load_experiment(
        overrides=merge((drawn_and_started if as_drawn else tiny).model_dump(), changes)
    )
    record(experiment, partial.folder, tmp_path, SINGLE_PROCESS)
    launch(record, (experiment, partial.folder, tmp_path), 2, "gloo")
    one, first, second = (torch.load(tmp_path / f"{name}.pt") for name in ("0of1", "0of2", "1of2"))
    assert first["losses"] == second["losses"]
    assert all(map(math.isfinite, one["losses"]))
    assert (len(one["losses"]) < -(-len(partial.indices("train")) // 21)) == as_drawn  # fewer are drawn
    assert first["losses"] == pytest.approx(one["losses"], abs=1e-5)
    for name, expected in one["buffers"].items():
        torch.testing.assert_close(first["buffers"][name], expected, atol=1e-6, rtol=0)
    both = train(on(experiment, 2), partial, tmp_path / "two")
    alone = train(experiment, partial, tmp_path / "one")
    assert both.card.thresholds == alone.card.thresholds
    assert both.card.origin == alone.card.origin
    assert (both.card.origin is not None) == as_drawn


def test_sweep(
    in_this_process: list[Any], partial: Store, drawn_and_started: Experiment, tmp_path: Path
) -> None:
    space = {"method.latent": [4, 6], "data.sampling.temperature": [0.0, 0.5]}
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(space))
    by_size = {"data": {"sampling": {"weights": None, "temperature": 0.5}}}
    experiment = load_experiment(overrides=merge(drawn_and_started.model_dump(), by_size))
    study = sweep(tmp_path / "space.yaml", partial.folder, tmp_path / "out", experiment, trials=2)
    rows = list(csv.DictReader((tmp_path / "out" / "study.csv").read_text().splitlines()))
    assert all(math.isfinite(float(row["micro_f1"])) for row in rows)
    text = (tmp_path / "out" / "study.md").read_text()
    for number in range(2):
        folder = tmp_path / "out" / "runs" / f"trial{number:04}"
        report = carat.evaluate(folder, partial, "valid", device="cpu")
        corpora = {
            name: {metric: getattr(x.metrics, metric) for metric in ("micro_f1", "macro_f1")}
            for name, x in report.corpora.items()
        }
        assert study.corpora(number) == corpora
        assert f"| trial | {' | '.join(corpora)} |" in text
        shown = (f"{x['micro_f1']:.3f} / {x['macro_f1']:.3f}".replace("0.", ".") for x in corpora.values())
        assert f"| {number} | {' | '.join(shown)} |" in text
        assert carat.load(folder, "cpu").card.origin is not None
    sweep(tmp_path / "space.yaml", partial.folder, tmp_path / "out", experiment, trials=2)
    assert (tmp_path / "out" / "study.md").read_text() == text


def test_compare(
    in_this_process: list[Any],
    partial: Store,
    store: Store,
    known: NDArray[np.bool_],
    tiny: Experiment,
    tmp_path: Path,
) -> None:
    values = tiny.model_dump()
    settings = {
        "all": {"data": values["data"], "training": values["training"] | {"epochs": 1}},
        "carat": {"method": values["method"]},
    }
    results = compare(
        partial.folder,
        tmp_path / "out",
        methods=["carat", "br", "prior"],
        settings=settings,
        seeds=1,
        budget=1,
    )
    for result in results:
        folder = next((tmp_path / "out" / "runs" / result.method).glob("*/seed0"))
        report = carat.evaluate(folder, partial, device="cpu")
        assert result.metrics[0].micro_f1 == report.metrics.micro_f1
        assert result.metrics[0].labels["happy"].known == known[partial.indices("test"), 0].sum()
        assert all(math.isfinite(value) for _, value in result.missing.values())
        assert math.isfinite(result.per_label[0].macro_f1)
        for corpus, metrics in result.corpora.items():
            assert metrics[0].macro_f1 == report.corpora[corpus].metrics.macro_f1
        assert list(result.corpora) == list(report.corpora) == ["small", "large"]
    text = " ".join((tmp_path / "out" / "leaderboard.md").read_text().split())
    assert "split 'test': " in text
    assert "labels are unknown (happy " in text
    assert "| method | small | large |" in text
    assert "by corpus" in (tmp_path / "out" / "leaderboard.html").read_text()
    rows = list(csv.DictReader((tmp_path / "out" / "leaderboard.csv").read_text().splitlines()))
    assert float(rows[0]["corpus small micro_f1"]) == results[0].corpora["small"][0].micro_f1


def test_ablation(
    in_this_process: list[Any],
    partial: Store,
    drawn_and_started: Experiment,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablation, "variants", three_variants)
    rows = ablation.ablate(drawn_and_started, partial.folder, tmp_path / "out", seeds=1)
    full = carat.evaluate(tmp_path / "out" / "runs" / "full" / "seed0", partial, device="cpu")
    assert rows[0].metrics["micro_f1"] == [full.metrics.micro_f1]
    assert all(math.isfinite(row.difference) for row in rows)
    for row in rows:
        folder = tmp_path / "out" / "runs" / row.name.replace(" ", "-") / "seed0"
        predictor = carat.load(folder, "cpu")
        assert predictor.card.origin is not None
        corpora = predictor.evaluate(partial).corpora
        assert {name: x.metrics.micro_f1 for name, x in corpora.items()} == {
            name: x[0].micro_f1 for name, x in row.corpora.items()
        }
    assert "| variant | small | large |" in (tmp_path / "out" / "ablation.md").read_text()
    written = list(csv.DictReader((tmp_path / "out" / "ablation.csv").read_text().splitlines()))
    assert float(written[2]["corpus small macro_f1"]) == rows[2].corpora["small"][0].macro_f1


def test_explained_outputs(run_on_partial: TrainedRun, partial: Store, known: NDArray[np.bool_]) -> None:
    outputs = collect_outputs(carat.load(run_on_partial, "cpu"), partial, "test", 1000, 0)
    assert outputs is not None
    np.testing.assert_array_equal(outputs.known, known[outputs.rows])
    np.testing.assert_array_equal(outputs.truth, np.asarray(partial.labels)[outputs.rows] == 1)
    points = sample_points(outputs, 1000, 0)
    assert outputs.known[outputs.kept][points.index[:, 0], points.index[:, 2]].all()
    assert all(known[row].any() for row in select_samples(outputs))


@pytest.mark.slow
def test_explain(
    run_on_partial: TrainedRun, partial: Store, known: NDArray[np.bool_], tmp_path: Path
) -> None:
    row = next(i for i in partial.indices("test") if not known[i].all() and known[i].any())
    files = explain(run_on_partial, partial, tmp_path / "f", points=40, samples=[str(partial.ids[row])])
    names = {"latents.csv", "co_occurrence.csv", "contributions.csv", f"attention_{partial.ids[row]}.svg"}
    assert names <= {file.name for file in files}
    counts = {
        (line["label"], line["other"]): int(line["truth"])
        for line in csv.DictReader((tmp_path / "f" / "co_occurrence.csv").read_text().splitlines())
    }
    truth = np.asarray(partial.labels)[partial.indices("test")].astype(int)
    assert counts["happy", "sad"] == truth[:, 0] @ truth[:, 1]


@pytest.mark.slow
def test_export(run_on_partial: TrainedRun, partial: Store, tmp_path: Path) -> None:
    exported = export(run_on_partial, tmp_path / "run.pt2", store=partial)
    report = carat.evaluate(run_on_partial, partial, "valid", device="cpu")
    assert exported.f1["float"]["micro_f1"] == report.metrics.micro_f1
