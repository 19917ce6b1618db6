"""Further parts of the report of a run: floors, attributes from tables, ceilings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import carat
from carat.data.store import Store
from carat.data.store.writer import StoreWriter
from carat.inference.attributes import read_attribute
from carat.training.train import TrainedRun
from carat.utils.errors import DataError


@pytest.fixture
def table(store: Store, tmp_path: Path) -> Path:
    """Genders of groups, of which one is missing; every other group is of one gender."""
    names = sorted(set(store.groups.tolist()))
    lines = [f"{name},{'fm'[i % 2]},x" for i, name in enumerate(names[1:])]
    file = tmp_path / "speakers.csv"
    file.write_text("\n".join(["id,gender,note", *lines]))
    return file


def test_attributes(store: Store, table: Path, tmp_path: Path) -> None:
    assert read_attribute(store, "group")[1].tolist() == store.groups.tolist()
    name, values = read_attribute(store, f"{table}:gender")
    assert name == "gender"
    assert set(values.tolist()) == {"", "f", "m"}
    for by, message in (
        ("corpus", "is of one corpus"),
        ("gender", "unknown attribute 'gender'; use group, corpus or FILE:COLUMN"),
        (f"{table}:gendr", "no column 'gendr'; did you mean 'gender'"),
        (f"{tmp_path / 'none.csv'}:a", "none.csv"),
    ):
        with pytest.raises(DataError, match=message):
            read_attribute(store, by)
    table.write_text("id,gender\nzzz,f\n")
    with pytest.raises(DataError, match="column 'id' has no id or group"):
        read_attribute(store, f"{table}:gender")
    table.write_text("id,gender\nzzz,f\nzzz,m\n")
    with pytest.raises(DataError, match="id 'zzz' has two values, 'f' and 'm'"):
        read_attribute(store, f"{table}:gender")


def test_report_with_floors_and_subsets(trained: TrainedRun, store: Store, table: Path) -> None:
    report = carat.evaluate(trained, store, device="cpu", floors=True, by=f"{table}:gender")
    plain = carat.evaluate(trained, store, device="cpu")
    assert list(report.floors) == ["prior"]
    assert report.metrics.micro_f1 == plain.metrics.micro_f1
    assert report.subsets is not None
    assert list(report.subsets.values) == ["f", "m"]
    known = sum(x.samples for x in report.subsets.values.values())
    missing = [note for note in report.metrics.notes if note.endswith("samples have no gender")]
    assert known + (int(missing[0].split()[0]) if missing else 0) == report.samples
    json.dumps(report.to_json(), allow_nan=False)
    assert not {"floors", "subsets", "agreement"} & set(plain.to_json())
    big = carat.make_synthetic(table.parent / "big", samples=1500)
    with pytest.raises(DataError, match=r"group has .* values in this split, expected 1 to 50"):
        carat.evaluate(trained, big, device="cpu", by="group")


def test_floor_of_texts_and_ceiling_of_votes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with StoreWriter(
        tmp_path / "s", "votes", ["glad", "sad"], {"audio": ""}, ["train", "valid", "test"]
    ) as writer:
        for i in range(240):
            grades = np.array([[0.9, 0.1], [0.2, 0.8]][i % 2])
            text = ("so happy and merry", "tears of sorrow")[i % 2]
            split = ("train", "train", "valid", "test")[i // 2 % 4]
            writer.append(
                f"s{i}",
                split,
                grades > 0.5,
                {"audio": random.normal(size=(3, 4))},
                group=f"g{i // 4}",
                transcript=text,
                grades=grades,
            )
    run = carat.train(
        {"method": {"name": "linear"}, "training": {"epochs": 1, "accelerator": "cpu"}},
        tmp_path / "s",
        tmp_path / "r",
    )
    report = carat.evaluate(run, tmp_path / "s", device="cpu", floors=True)
    assert list(report.floors) == ["prior", "TF-IDF"]
    assert report.floors["TF-IDF"].values["micro_f1"] == 1
    assert any("not surely above the floor 'TF-IDF'" in note for note in report.metrics.notes)
    assert report.agreement is not None
    assert report.agreement.labels == report.agreement.ceiling == pytest.approx(2 * 0.85 / (1 + 1), abs=1e-3)


def test_on_the_command_line(run: Any, trained: TrainedRun, store: Store, table: Path) -> None:
    code, out, _ = run("evaluate", trained.folder, "--data", store.folder, "--by", f"{table}:gender")
    assert (code, "Floors" in out, "By gender" in out) == (0, True, True)
    code, out, _ = run("evaluate", trained.folder, "--data", store.folder, "--no-floors")
    assert (code, "Floors" in out) == (0, False)
    code, _, err = run("evaluate", trained.folder, "--data", store.folder, "--by", "x")
    assert (code, err.count("\n")) == (2, 1)
