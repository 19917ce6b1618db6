"""Unknown labels on their way from a table to a store, its summary and its checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.cli.tables import show_summary
from carat.data.checks.features import auroc
from carat.data.checks.store import check_store
from carat.data.recipes.build import build_store
from carat.data.store import Store, open_store
from carat.data.summary import store_warnings, summarize, unknown_notes
from carat.utils.errors import DataError
from tests.unknown import draw_known, rewrite

NAN = float("nan")


def build(folder: Path, tables: dict[str, str], **labels: Any) -> Store:
    """Build a store from a table for each split, with one number as features."""
    for split, content in tables.items():
        (folder / f"{split}.csv").write_text(content)
    recipe = {
        "name": "mine",
        "table": {split: f"{split}.csv" for split in tables},
        "id": "id",
        "labels": labels,
        "modalities": {"text": {"source": "columns", "columns": "x"}},
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    return build_store(folder / "r.yaml", folder / "store", overwrite=True)


TABLES = {
    "train": "id,x,on_sad,on_glad,on_fear\na,1,1,0,\nb,2,nan,1,1\nc,3,,n/a,\n",
    "valid": "id,x,on_sad,on_fear\nd,4,1,0\ne,5,0,1\n",
}


@pytest.mark.parametrize("columns", ["on_*", ["on_sad", "on_glad", "on_fear"]])
def test_empty_cells_and_lacking_columns_are_kept_as_unknown(tmp_path: Path, columns: Any) -> None:
    store = build(tmp_path, TABLES, columns=columns, unknown="keep", intensities=True)
    assert [name.removeprefix("on_") for name in store.label_names] == ["sad", "glad", "fear"]
    expected = [[1, 0, NAN], [NAN, 1, 1], [NAN, NAN, NAN], [1, NAN, 0], [0, NAN, 1]]
    np.testing.assert_array_equal(store.targets(), expected)
    assert store.intensities is not None
    assert store.intensities.tolist() == np.nan_to_num(expected).tolist()
    note = (
        "5 of 5 rows have unknown labels, e.g. train.csv: data row 1, column 'on_fear' is '': kept as unknown"
    )
    assert note in store.manifest.notes


@pytest.mark.parametrize("unknown", ["refuse", "drop", "absent"])
@pytest.mark.parametrize("columns", ["on_*", ["on_sad", "on_glad"]])
def test_lacking_columns_are_refused_otherwise(tmp_path: Path, columns: Any, unknown: str) -> None:
    message = (
        r"valid.csv: no column 'on_glad', which the other tables have; keep .* by labels: \{unknown: keep"
    )
    with pytest.raises(DataError, match=message):
        build(tmp_path, TABLES, columns=columns, unknown=unknown)


def test_the_refusal_names_every_choice(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"\{unknown: drop\}.*\{unknown: absent\}.*\{unknown: keep\}"):
        build(tmp_path, TABLES, columns=["on_sad"])


def test_unknown_names_leave_all_labels_of_the_row_unknown(tmp_path: Path) -> None:
    tables = {"train": "id,x,y\na,1,sad;glad\nb,2,\nc,3,rage\n", "valid": "id,x\nd,4\n"}
    store = build(tmp_path, tables, column="y", names=["sad", "glad"], unknown="keep")
    np.testing.assert_array_equal(store.targets(), [[1, 1], [NAN, NAN], [NAN, NAN], [NAN, NAN]])
    with pytest.raises(DataError, match=r"valid.csv: no column 'y', .*; keep its labels as unknown"):
        build(tmp_path, tables, column="y", names=["sad", "glad"])


def test_tables_without_any_known_label_are_refused(tmp_path: Path) -> None:
    tables = {"train": "id,x,sad\na,1,\n", "valid": "id,x,sad\nb,2,nan\n"}
    with pytest.raises(DataError, match="no row has a known label"):
        build(tmp_path, tables, columns=["sad"], unknown="keep")


def test_complete_tables_give_the_same_store_whatever_the_choice(tmp_path: Path) -> None:
    tables = {"train": "id,x,sad\na,1,0\nb,2,1\n", "valid": "id,x,sad\nc,3,1\n"}
    fingerprints = set()
    for unknown in ("refuse", "drop", "absent", "keep"):
        (tmp_path / unknown).mkdir()
        store = build(tmp_path / unknown, tables, columns=["sad"], unknown=unknown)
        fingerprints.add(store.manifest.fingerprint)
        assert not store.has_unknown
    assert len(fingerprints) == 1


def test_columns_that_only_some_tables_have_and_nobody_reads(tmp_path: Path) -> None:
    tables = {"train": "id,x,sad,note\na,1,0,hm\n", "valid": "id,x,sad\nc,3,1\n"}
    assert not build(tmp_path, tables, columns=["sad"], unknown="keep").has_unknown


def test_summary_counts_known_labels(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = draw_known(store)
    rewritten = rewrite(store, tmp_path / "s", known)
    summary = summarize(rewritten)["labels"]["valid"]
    rows = store.indices("valid")
    positives = (np.asarray(store.labels) & known)[rows].sum(0)
    assert list(summary["positives"].values()) == positives.tolist()
    assert list(summary["known"].values()) == known[rows].sum(0).tolist()
    complete = rows[known[rows].all(1)]
    assert 0 < len(complete) < len(rows)
    assert summary["cardinality"] == np.asarray(store.labels)[complete].sum(1).mean()
    assert summary["without_label"] == (np.asarray(store.labels)[complete].sum(1) == 0).mean()
    show_summary(summarize(rewritten))
    assert f"{positives[0]} of {known[rows, 0].sum()} known" in capsys.readouterr().out
    show_summary(summarize(store))
    assert "known" not in capsys.readouterr().out
    note = unknown_notes(rewritten, ["valid"])[0]
    assert (
        f"{(~known[rows]).sum()} of {known[rows].size} labels are unknown (happy {(~known[rows, 0]).sum()},"
        in note
    )
    assert note in store_warnings(rewritten)
    assert unknown_notes(store) == []
    known[:] = False
    known[:, 0] = True
    assert summarize(rewrite(store, tmp_path / "t", known))["labels"]["test"]["cardinality"] is None


def verdicts(store: Store) -> dict[str, tuple[str, str]]:
    return {x.check: (x.verdict, x.message) for x in check_store(store)}


def test_checks_of_unknown_labels(store: Store, tmp_path: Path) -> None:
    assert verdicts(store)["unknown labels"] == ("ok", "none")
    known = draw_known(store)
    found = verdicts(rewrite(store, tmp_path / "some", known))
    assert found["unknown labels"][0] == "ok"
    assert "split 'train': " in found["unknown labels"][1]
    rows = store.indices("train")
    happy = np.asarray(store.labels)[rows, 0][known[rows, 0]].mean()
    assert f"in train happy {100 * happy:.0f}%, " in found["label frequencies"][1]
    known[store.indices("test"), 1] = False
    found = verdicts(rewrite(store, tmp_path / "test", known))
    assert found["unknown labels"] == (
        "warn",
        "test has no known label 'sad', so that nothing is measured there",
    )
    known[rows, 2] = False
    found = verdicts(rewrite(store, tmp_path / "train", known))
    assert found["unknown labels"][0] == "fail"
    assert found["unknown labels"][1].startswith("no training sample has a known label 'anger'")
    assert "anger" not in found["label frequencies"][1]


def test_unknown_labels_do_not_count_as_absent_in_checks(store: Store, tmp_path: Path) -> None:
    """Taken as absent, unknown labels would make most samples of validation unlabeled."""
    known = np.ones(store.labels.shape, dtype=bool)
    rows = store.indices("valid")
    known[rows[: len(rows) // 4]] = False
    message = verdicts(rewrite(store, tmp_path / "s", known))["samples without labels"][1]
    share = (np.asarray(store.labels)[rows[len(rows) // 4 :]].sum(1) == 0).mean()
    assert f"valid {share:.0%}" in message
    known[:, 0] = False
    found = verdicts(rewrite(store, tmp_path / "t", known))["samples without labels"]
    assert found == ("ok", "not possible, because no sample has all labels known")


def test_area_of_known_labels() -> None:
    random = np.random.default_rng(0)
    values, labels = random.normal(size=(37, 3)), random.integers(0, 2, (37, 2))
    known = random.random((37, 2)) < 0.6
    found = auroc(values, np.where(known, labels, 0), known)
    for i in range(2):
        rows = known[:, i]
        np.testing.assert_allclose(found[i], auroc(values[rows], labels[rows][:, [i]])[0])


def test_stores_of_unknown_labels_are_checked_when_opened(store: Store, tmp_path: Path) -> None:
    from tests.data.store.test_store import reseal

    folder = rewrite(store, tmp_path / "s", draw_known(store)).folder
    np.save(folder / "labels.npy", np.ones_like(store.labels))
    reseal(folder)
    with pytest.raises(DataError, match=r"labels.npy: altered: a label that is unknown is 1, expected 0"):
        open_store(folder)
    np.save(folder / "labels.npy", np.zeros_like(store.labels))
    np.save(folder / "known.npy", np.zeros(3, dtype=bool))
    reseal(folder)
    with pytest.raises(DataError, match=r"known.npy: altered: shape \(3,\)"):
        open_store(folder)
