"""Splits of recipes: columns, tables, lists of IDs and shares; and the IDs of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.data.recipes.build import build_store
from carat.data.store import Store
from carat.utils.errors import ConfigError, DataError

N = 120
FOLDS = ("train", "train", "Dev", "test")
LINES = [
    f"c{i},v{i // 4},{FOLDS[i // 4 % 4]},{i % 3 == 0:d},{i % 17 == 0:d},0.5,{i % 3 == 0:d}" for i in range(N)
]
HEADER = "id,video,fold,joy,fear,pitch,loudness"


def build(folder: Path, table: Any = "t.csv", **recipe: Any) -> Store:
    if not (folder / "t.csv").exists():
        (folder / "t.csv").write_text("\n".join([HEADER, *LINES]))
    recipe = {
        "name": "mine",
        "table": table,
        "id": "id",
        "labels": {"columns": ["joy", "fear"]},
        "modalities": {"audio": {"source": "columns", "columns": ["pitch", "loud*"]}},
        **recipe,
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    return build_store(folder / "r.yaml", folder / "store", overwrite=True)


def splits(store: Store) -> dict[str, list[str]]:
    return {split: [store.ids[i] for i in store.indices(split)] for split in store.manifest.splits}


def test_common_names_of_splits_are_accepted_and_said(tmp_path: Path) -> None:
    store = build(tmp_path, split="fold")
    assert store.manifest.splits == {"train": 64, "valid": 28, "test": 28}
    assert "'Dev' in column 'fold' is taken as valid" in store.manifest.notes
    with pytest.raises(
        DataError, match="data row 9 has split 'Dev', but the recipe's splits are test, train, dev"
    ):
        build(tmp_path, split="fold", splits={"train": "train", "valid": "dev", "test": "test"})


def test_features_are_columns_of_the_table(tmp_path: Path) -> None:
    store = build(tmp_path, split="fold")
    assert store.features("audio", 3).tolist() == [[0.5, 1]]
    assert store.features("audio", 4).tolist() == [[0.5, 0]]
    assert store.manifest.modalities["audio"].source.startswith("columns:")
    with pytest.raises(DataError, match="features contain the label column 'joy'; leave it out"):
        build(tmp_path, split="fold", modalities={"audio": {"source": "columns", "columns": ["pitch", "j*"]}})
    (tmp_path / "u.csv").write_text(
        "\n".join([HEADER, *LINES[:-1], LINES[-1].replace("0.5", "-nan(ind)"), "e,v,train,1,0,loud,1"])
    )
    with pytest.raises(DataError, match="column 'pitch', data row 121: 'loud' is not a finite number"):
        build(tmp_path, "u.csv", split="fold")


def test_a_table_for_each_split(tmp_path: Path) -> None:
    for name, rows in (("a", LINES[:60]), ("b", LINES[60:90]), ("c", LINES[90:])):
        renumbered = [f"c{i},{row.split(',', 1)[1]}" for i, row in enumerate(rows)]
        (tmp_path / f"{name}.csv").write_text("\n".join([HEADER, *renumbered]))
    table = {"train": "a.csv", "valid": "b.csv", "test": "c.csv"}
    store = build(tmp_path, table, id=["split", "id"], group=["split", "video"])
    assert store.manifest.splits == {"train": 60, "valid": 30, "test": 30}
    assert (store.ids[60], store.groups[60]) == ("valid/c0", "valid/v15")
    with pytest.raises(
        DataError,
        match=r"duplicate id 'c0' in .*a.csv, data row 1, and .*b.csv, data row 1; .* add split to id",
    ):
        build(tmp_path, table)
    with pytest.raises(
        ConfigError, match="split and splits have no effect, because there is a table for each"
    ):
        build(tmp_path, table, split="fold")


def test_lists_of_ids(tmp_path: Path) -> None:
    for name, ids in (("a", range(70)), ("b", range(70, 90)), ("c", range(90, N))):
        (tmp_path / f"{name}.txt").write_text("".join(f"c{i}\r\n" for i in ids))
    lists: dict[str, Any] = {"train": "a.txt", "valid": "b.txt", "test": "c.txt"}
    store = build(tmp_path, split=lists)
    assert splits(store)["valid"] == [f"c{i}" for i in range(70, 90)]
    (tmp_path / "c.txt").write_text("c100\nc101\nother\n")
    with pytest.raises(
        DataError, match=r"28 of 120 rows are in none of the lists, e.g. 'c90', which hold IDs such"
    ):
        build(tmp_path, split=lists)
    store = build(tmp_path, split={**lists, "unlisted": "drop"})
    assert splits(store)["test"] == ["c100", "c101"]
    assert store.labels[store.indices("test")[1]].tolist() == [0, 0]
    assert store.features("audio", 90).tolist() == [[0.5, 0]]  # of c100
    assert "28 of 120 rows are in none of the lists, e.g. 'c90': left out" in store.manifest.notes
    assert "1 of 93 IDs in the lists of the splits are not in the table" in store.manifest.notes
    (tmp_path / "c.txt").write_text("c100\nc3\n")
    with pytest.raises(DataError, match=r"c.txt: 'c3' is in the list of train too"):
        build(tmp_path, split=lists)


def test_lists_that_name_no_row(tmp_path: Path) -> None:
    for name, ids in (("a", range(70)), ("b", range(70, 90)), ("c", range(90, N))):
        (tmp_path / f"{name}.txt").write_text("".join(f"c{i}.wav\n" for i in ids))
    lists = {"train": "a.txt", "valid": "b.txt", "test": "c.txt"}
    with pytest.raises(DataError, match=r"120 of 120 .*, e.g. 'c0', which hold IDs such as 'c0.wav'"):
        build(tmp_path, split=lists)


def test_lists_of_groups(tmp_path: Path) -> None:
    for name, ids in (("a", range(20)), ("b", range(20, 25)), ("c", range(25, 30))):
        (tmp_path / f"{name}.txt").write_text("\n".join(f"v{i}" for i in ids))
    store = build(tmp_path, group="video", split={"train": "a.txt", "valid": "b.txt", "test": "c.txt"})
    assert store.manifest.splits == {"train": 80, "valid": 20, "test": 20}
    assert "the lists of the splits hold groups" in store.manifest.notes


SHARES = {"train": 0.7, "valid": 0.15, "test": 0.15}


@pytest.mark.parametrize("stratify", [True, False])
def test_shares_do_not_divide_groups_and_depend_on_the_seed_alone(tmp_path: Path, stratify: bool) -> None:
    split = {"by": "group", **SHARES, "stratify": stratify, "seed": 0}
    store = build(tmp_path, group="video", split=split)
    found = splits(store)
    assert sum(map(len, found.values())) == N
    for share, ids in zip(SHARES.values(), found.values(), strict=True):
        assert abs(len(ids) - share * N) <= 4
    videos = [{int(id[1:]) // 4 for id in ids} for ids in found.values()]
    assert not videos[0] & videos[1]
    assert not videos[0] & videos[2]
    assert not videos[1] & videos[2]
    how = "stratified by labels (iterative stratification)" if stratify else "at random"
    assert f"split by group: train 0.7, valid 0.15, test 0.15, {how}, seed 0" in store.manifest.notes
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *reversed(LINES)]))
    reversed_ids = splits(build(tmp_path, group="video", split=split))
    assert {k: set(v) for k, v in reversed_ids.items()} == {k: set(v) for k, v in found.items()}
    assert splits(build(tmp_path, group="video", split={**split, "seed": 1})) != reversed_ids


def test_stratified_shares_spread_rare_labels(tmp_path: Path) -> None:
    for seed in range(5):
        store = build(tmp_path, split={**SHARES, "seed": seed})
        counts = [store.labels[store.indices(s)].sum(0).tolist() for s in SHARES]
        expected = np.outer(list(SHARES.values()), [40, 8])
        assert np.abs(np.array(counts) - expected).max() <= 1.01


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": 0.7, "valid": 0.2, "test": 0.2}, "the shares of the splits sum to 1.1, expected 1"),
        ({"train": 0.7, "valid": 0.3, "by": "fold", "seed": -1}, "split.*seed"),
        ({"train": 0.7, "test": 0.3}, "valid"),
        ({"train": 1.5, "valid": -0.5}, "train"),
        (["a"], "split"),
        (None, "'split' is missing"),
    ],
)
def test_invalid_splits_are_refused(tmp_path: Path, split: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(tmp_path, split=split)


def test_groups_are_not_divided_by_another_column(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a split by 'id' divides group 'v1'; split by group instead"):
        build(tmp_path, group="video", split={"by": "id", **SHARES, "stratify": False})
    with pytest.raises(DataError, match=r"split '.*' has no samples"):
        build(tmp_path, split={"by": "pitch", **SHARES})


def test_rows_for_a_trial_are_spread_over_the_table(tmp_path: Path) -> None:
    store = build(tmp_path, split="fold", rows=30)
    assert len(store) == 30
    assert [store.ids[i] for i in range(3)] == ["c0", "c4", "c8"]
    assert "30 rows of 120, evenly spaced" in store.manifest.notes
    assert len(build(tmp_path, split="fold", rows=1000)) == N


def test_group_of_several_columns_or_the_beginning_of_one(tmp_path: Path) -> None:
    assert build(tmp_path, split="fold", group=["fold", "video"]).groups[9] == "Dev/v2"
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *(line.replace(",", "_x_y,", 1) for line in LINES)]))
    assert build(tmp_path, split="fold", group={"column": "id", "before": "_"}).groups[9] == "c9"


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("c0 ", "the ids in data rows 1 and 121, 'c0 ', differ only in spaces or invisible characters"),
        (" c0", "differ only in spaces"),
        ("c0\u200b", "differ only in spaces"),
        ("c0\u00a0", "differ only in spaces"),
        ("c0", "duplicate id 'c0' in data rows 1 and 121"),
        ("", "data row 121: the id is empty"),
        ("  ", "data row 121: the id is empty"),
        ('"c0\n"', "data row 121: id 'c0.' contains a line break or a control character"),
        ("c0\x07", "contains a line break or a control character"),
    ],
)
def test_ids_that_cannot_be_told_apart_are_refused(tmp_path: Path, id: str, message: str) -> None:
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *LINES, f"{id},v99,train,1,0,0.5,1"]))
    with pytest.raises(DataError, match=message):
        build(tmp_path, split="fold")
    assert not (tmp_path / "store").exists()


def test_the_table_of_a_recipe_is_read_as_it_says(tmp_path: Path) -> None:
    rows = ["1;train;Je t\u2019aime;joie", '2;dev;"Non;peur', "3;test;O\u00f9?;joie"]
    (tmp_path / "t.csv").write_bytes("\n".join(rows).encode("cp1252"))
    np.savez(tmp_path / "g.npz", words=np.array(["non", "je"]), vectors=np.eye(2, 3))
    recipe = {
        "header": False,
        "columns": ["n", "fold", "text", "emotion"],
        "separator": ";",
        "quote": "none",
        "encoding": "cp1252",
        "id": "n",
        "split": "fold",
        "transcript": "text",
        "labels": {"column": "emotion"},
        "modalities": {"text": {"source": "glove", "file": "g.npz", "column": "text"}},
    }
    store = build(tmp_path, **recipe)
    assert [store.transcript(i) for i in range(3)] == ["Je t’aime", '"Non', "Où?"]
    numbered = {**recipe, "id": 0, "split": 1, "transcript": 2, "labels": {"column": 3}}
    numbered["modalities"] = {"text": {"source": "glove", "file": "g.npz", "column": 2}}
    del numbered["columns"]
    assert build(tmp_path, **numbered).manifest.fingerprint == store.manifest.fingerprint
    with pytest.raises(DataError, match=r"t.csv: no column 'emotion'; available: 1, train, Je t.aime, joie"):
        build(tmp_path, **{**recipe, "header": True, "columns": None})
    with pytest.raises(
        ConfigError, match="columns name those of a table without a header; set header: false"
    ):
        build(tmp_path, **{**recipe, "header": True})
    with pytest.raises(ConfigError, match=r"'utf-9' is not the name of an encoding; use e.g. utf-8, cp1252"):
        build(tmp_path, **{**recipe, "encoding": "utf-9"})


def test_rows_that_a_quote_swallows_are_refused_in_recipes(tmp_path: Path) -> None:
    lines = list(LINES)
    lines[3], lines[7] = (
        lines[3].replace("v0,", '"v0,'),
        lines[7].replace(",Dev", '",Dev').replace("v1,train", 'v1",train'),
    )
    (tmp_path / "t.csv").write_text("\n".join([HEADER, *lines]))
    with pytest.raises(
        DataError, match="line 5: a quote opens a cell that runs to line 9, but line 5 looks like a row"
    ):
        build(tmp_path, split="fold")
