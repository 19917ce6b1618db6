"""Trainings that start from the weights of another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import carat
from carat.config.base import merge
from carat.config.experiment import Experiment, load_experiment
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.features.description import PACKAGES, Description, VoiceSettings
from carat.runs.card import read_run
from carat.runs.folder import CARD, CHECKPOINTS, ENVIRONMENT, METRICS, WEIGHTS
from carat.training import train as training
from carat.training.distributed import SINGLE_PROCESS, Processes
from carat.training.lightning_module import TrainingModule
from carat.training.setup import prepare_task
from carat.training.train import TrainedRun, train
from carat.utils.errors import CaratError, ConfigError, RunError
from carat.utils.reading import hash_file
from tests.conftest import TINY
from tests.training.test_resume import KilledError, die

OTHER = {"fear": 5, "calm": 1, "happy": 0, "sad": 1}
"""Labels of the other corpus, and the columns of the store with their values."""


@pytest.fixture(scope="module")
def other(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Another corpus: some labels are new, others have another place; no visual modality."""
    folder, sources = tmp_path_factory.mktemp("other") / "store", {"audio": "made", "text": "made"}
    with StoreWriter(folder, "other", list(OTHER), sources, ["train", "valid", "test"]) as writer:
        for row in range(len(store)):
            sample = store[row]
            features = {m: sample.features[m] for m in sources if m in sample.features}
            labels = [int(store.labels[row][column]) for column in OTHER.values()]
            if features:
                writer.append(sample.id, sample.split, labels, features)
    return open_store(folder)


def starting(experiment: Experiment, run: Any, **training: Any) -> Experiment:
    changes = {"seed": 7, "training": {"init_from": run} | training}
    return load_experiment(overrides=merge(experiment.model_dump(), changes))


def initial_state(experiment: Experiment, store: Store) -> dict[str, Tensor]:
    return prepare_task(experiment, store, SINGLE_PROCESS).model.state_dict()


def test_training_starts_with_the_weights_of_the_run(
    store: Store, tiny: Experiment, trained: TrainedRun
) -> None:
    state, weights = initial_state(starting(tiny, trained), store), load_file(trained.folder / WEIGHTS)
    fresh = initial_state(starting(tiny, None), store)
    assert state.keys() == weights.keys()
    for name, tensor in state.items():
        assert torch.equal(tensor, (fresh if "memory_bank" in name else weights)[name]), name


def test_what_is_not_taken_starts_as_without_the_run(
    other: Store, tiny: Experiment, trained: TrainedRun
) -> None:
    fresh = initial_state(starting(tiny, None), other)
    for parts in ("all", "trunk"):
        task = prepare_task(starting(tiny, trained, init_parts=parts), other, SINGLE_PROCESS)
        classifier, before = task.model.state_dict()["network.classifier"], fresh["network.classifier"]
        weights = load_file(trained.folder / WEIGHTS)["network.classifier"]
        known = {m: i for i, m in enumerate(trained.card.modalities)}
        for i, m in enumerate(("audio", "text")):
            for j, label in enumerate(OTHER):
                taken = parts == "all" and label != "calm"
                column = trained.card.labels.index(label) if taken else -1
                expected = weights[known[m], column] if taken else before[i, j]
                assert torch.equal(classifier[i, j], expected), (parts, m, label)
        assert task.origin is not None
        assert task.origin.labels == (["fear", "happy", "sad"] if parts == "all" else [])
        assert ("network.classifier" in task.origin.initial) == (parts == "trunk")


def test_the_card_names_the_origin_and_the_run_is_not_needed_any_more(
    other: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path, logged: list[str]
) -> None:
    source = Path(shutil.copytree(trained.folder, tmp_path / "source"))
    run = train(starting(tiny, source), other, tmp_path / "run")
    origin = run.card.origin
    assert origin is not None
    assert (origin.run, origin.method, origin.parts) == (str(source), "carat", "all")
    assert origin.weights == hash_file(source / WEIGHTS)
    assert (origin.store, origin.fingerprint) == (trained.card.store, trained.card.fingerprint)
    assert origin.tensors == origin.total - len(origin.initial) > 50
    lines = origin.summary(run.card.labels)
    assert lines == [
        f"started from {source} (weights {origin.weights[:12]}): {origin.tensors} of {origin.total} tensors; "
        "labels fear, happy, sad",
        "initial values: labels calm",
    ]
    assert lines == [line for line in logged if line in lines]
    assert all(f"<td>{line}</td>" in run._repr_html_() for line in lines)
    assert read_run(run.folder)[1].training.init_from == str(source)

    expected = carat.evaluate(run, other, device="cpu").metrics.micro_f1
    shutil.rmtree(source)
    assert carat.evaluate(run.folder, other, device="cpu").metrics.micro_f1 == expected
    again = train(starting(tiny, source), other, run.folder, resume=True)
    assert again.card == run.card


def test_other_features_are_noted(tiny: Experiment, tmp_path: Path) -> None:
    runs = []
    for mel_bins in (8, 9):
        settings = VoiceSettings(mel_bins=mel_bins)
        packages = dict.fromkeys(PACKAGES["voice"], "1")
        description = Description(settings=settings, version=1, packages=packages, models={})
        folder, sources = tmp_path / f"store{mel_bins}", {"audio": description.id}
        with StoreWriter(
            folder, "made", ["sad"], sources, ["train", "valid"], extractions={"audio": description}
        ) as writer:
            for i in range(6):
                features = {"audio": np.full((3, 7), i, dtype="float32")}
                writer.append(f"{i}", "train" if i < 4 else "valid", [i % 2], features)
        start = starting(tiny, runs[-1] if runs else None, epochs=1)
        runs.append(train(start, folder, tmp_path / f"run{mel_bins}"))
    again = train(starting(tiny, runs[1], epochs=1), tmp_path / "store9", tmp_path / "again")
    assert runs[1].card.origin is not None
    assert again.card.origin is not None
    assert runs[1].card.origin.summary(["sad"])[1:] == [
        f"audio: features were extracted in another way than those of {runs[0].folder}, so that its weights "
        "may not suit them"
    ]
    assert len(again.card.origin.summary(["sad"])) == 1


def test_a_run_without_origin_has_no_such_key(trained: TrainedRun) -> None:
    assert trained.card.origin is None
    assert "origin" not in json.loads((trained.folder / CARD).read_text())
    assert "origin" not in json.loads((trained.folder / ENVIRONMENT).read_text())


@pytest.mark.parametrize("step", [1, 2, 6])
def test_interrupted_training_resumes_exactly_without_the_run(
    step: int, store: Store, other: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(trained.folder, tmp_path / "source"))
    experiment = starting(tiny, source, checkpoint_every=1)
    whole = train(experiment, other, tmp_path / "whole")
    begun = tmp_path / "begun"
    with pytest.MonkeyPatch.context() as patched:
        die(patched, TrainingModule, "training_step", step, KilledError())
        with pytest.raises(KilledError):
            train(experiment, other, begun)
    if step > 1:  # there is a checkpoint
        shutil.rmtree(source)
    train(experiment, other, begun)
    for name in (WEIGHTS, METRICS, CARD):
        assert (begun / name).read_bytes() == (whole.folder / name).read_bytes(), name


def test_extension_does_not_need_the_run(
    other: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(trained.folder, tmp_path / "source"))
    run = train(starting(tiny, source), other, tmp_path / "run")
    shutil.rmtree(source)
    longer = train(starting(tiny, source, epochs=3), other, run.folder, resume=True)
    assert longer.card.origin == run.card.origin
    assert longer.experiment.training.epochs == 3


def test_a_start_without_checkpoint_takes_the_run_as_it_is_then(
    other: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(trained.folder, tmp_path / "source"))
    experiment = starting(tiny, source)
    with pytest.MonkeyPatch.context() as patched:
        die(patched, TrainingModule, "training_step", 1, KilledError())
        with pytest.raises(KilledError):
            train(experiment, other, tmp_path / "run")
    assert not list((tmp_path / "run" / CHECKPOINTS).glob("*"))
    shutil.rmtree(source)
    changed = train(merge(tiny.model_dump(), {"seed": 1}), other, source)
    run = train(experiment, other, tmp_path / "run")
    assert run.card.origin is not None
    assert run.card.origin.weights == changed.card.digests[WEIGHTS]


def test_fine_tuning_continues_what_was_learned(
    other: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path
) -> None:
    """With a learning rate of nearly 0 the new run scores as the one that it started from."""
    settings = {"data": {"modalities": ["text", "audio"]}, "training": {"epochs": 1}}
    source = train(merge(tiny.model_dump(), settings), other, tmp_path / "source")
    run = train(starting(source.experiment, source, learning_rate=1e-12, epochs=1), other, tmp_path / "run")
    first, second = (
        carat.load(x, device="cpu").score(other, "valid", calibrated=False)[1] for x in (source, run)
    )
    assert abs(first - second).max() < 0.02  # prototypes move


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        ("missing", RunError, "training.init_from: {run}: no such run; train one with `carat train`"),
        ("unfinished", RunError, "training.init_from: {run}: the training did not finish, run.json or"),
        ("store", RunError, "training.init_from: {run}: not a carat run, experiment.yaml is missing"),
        ("modified", RunError, "training.init_from: {run}/weights.safetensors: modified after training"),
        ("encoder", ConfigError, "labels happy, sad, .*has no pretrained encoder that fits"),
        ("method", ConfigError, r"has no weights that fit linear on this data \(init_parts: all\)"),
        ("own folder", ConfigError, "is in the folder of the run to write; choose another --out"),
    ],
)
def test_runs_that_cannot_be_started_from(
    damage: str,
    error: type[CaratError],
    message: str,
    store: Store,
    tiny: Experiment,
    trained: TrainedRun,
    tmp_path: Path,
) -> None:
    source, out, changes = tmp_path / "source", tmp_path / "run", {}
    if damage != "missing":
        shutil.copytree(store.folder if damage == "store" else trained.folder, source)
    if damage == "unfinished":
        (source / CARD).unlink()
    elif damage == "modified":
        with (source / WEIGHTS).open("r+b") as opened:
            opened.seek(-1, 2)
            last = opened.read(1)
            opened.seek(-1, 2)
            opened.write(bytes([last[0] ^ 1]))
    elif damage == "encoder":
        changes = {"training": {"init_parts": "encoder"}}
    elif damage == "method":
        changes = {"method": {"name": "linear"}}
    elif damage == "own folder":
        out = source
    values = tiny.model_dump(exclude={"method"} if damage == "method" else None)
    experiment = load_experiment(overrides=merge(merge(values, {"training": {"init_from": source}}), changes))
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(error, match=message.format(run=source)) as raised:
        train(experiment, store, out, overwrite=True)
    assert "\n" not in str(raised.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_settings_that_need_a_run() -> None:
    with pytest.raises(ConfigError, match=r"training.init_parts: requires training.init_from"):
        load_experiment(overrides={"training": {"init_parts": "trunk"}})
    with pytest.raises(
        ConfigError, match=r"training.init_parts: input should be 'all', 'trunk' or 'encoder'"
    ):
        load_experiment(overrides={"training": {"init_from": "x", "init_parts": "head"}})
    assert load_experiment(overrides={"training": {"init_from": ""}}) == Experiment()


def test_processes_start_alike(other: Store, tiny: Experiment, trained: TrainedRun) -> None:
    experiment = starting(tiny, trained)
    first, second = (
        prepare_task(experiment, other, Processes(rank, 2, rank, 2)).model.state_dict() for rank in range(2)
    )
    assert all(torch.equal(second[name], tensor) for name, tensor in first.items())


@pytest.mark.slow
def test_a_training_of_two_processes(
    other: Store, tiny: Experiment, trained: TrainedRun, tmp_path: Path
) -> None:
    experiment = starting(tiny, trained, devices=2)
    run = train(experiment, other, tmp_path / "run")
    alone = train(starting(tiny, trained), other, tmp_path / "alone")
    assert run.card.origin == alone.card.origin
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(training, "read_origin", lambda out: None)
        with pytest.raises(RunError, match="changed while the training started"):
            training._train_share(experiment, other.folder, tmp_path / "none", SINGLE_PROCESS)


def test_command_line(run: Any, other: Store, trained: TrainedRun, tmp_path: Path) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(merge(TINY, {"training": {"init_from": str(trained.folder), "epochs": 1}})))
    options = ["--data", other.folder, "--out", tmp_path / "run", "--training.init-parts", "trunk"]
    code, _, err = run("train", file, *options)
    assert code == 0
    assert f"started from {trained.folder} (weights {trained.card.digests[WEIGHTS][:12]}): " in err
    assert " tensors, trunk only" in err
    assert "initial values: labels fear, calm, happy, sad; " in err
    code, _, err = run(
        *["train", "--data", other.folder, "--out", tmp_path / "x", "--training.init-from", "no/run"]
    )
    assert code == 2
    assert err == "carat: error: training.init_from: no/run: no such run; train one with `carat train`\n"
