from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from carat.data.corpora.base import strip_padding
from carat.data.recipes.build import build_store
from carat.utils.errors import CaratError, ConfigError, DataError

TABLE = """name,clip,fold,show,transcript,sad,fear
a,c1,train,s1,"Oh, no!",2.5,0
b,c1,train,s1,no no,0,0
c,c2,dev,s2,"so
what",0,1
d,c3,test,s3,yes,0.5,0.5
"""
AUDIO = {"c1": [[1.0, 5, 7], [3, 5, np.inf]], "c2": [[5.0, 5, 7]]}
RECIPE: dict[str, Any] = {
    "name": "mine",
    "table": "t.csv",
    "id": ["show", "name"],
    "split": "fold",
    "splits": {"train": "train", "valid": "dev", "test": "test"},
    "group": "show",
    "transcript": "transcript",
    "labels": {"columns": ["sad", "fear"], "rule": "> 0.5", "intensities": True},
    "modalities": {
        "text": {"source": "glove", "file": "g.npz", "column": "transcript"},
        "audio": {"source": "array", "file": "a.npz", "column": "clip"},
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "t.csv").write_text(TABLE)
    np.savez(tmp_path / "a.npz", **{key: np.array(rows) for key, rows in AUDIO.items()})
    np.savez(tmp_path / "g.npz", words=np.array(["no", "so", "!"]), vectors=np.eye(3, 5))
    return tmp_path


def build(folder: Path, recipe: dict[str, Any]) -> Any:
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    return build_store(folder / "r.yaml", folder / "store")


def changed(path: str, value: Any) -> dict[str, Any]:
    """The recipe with one key, given by its dotted path, replaced; None removes it."""
    recipe: dict[str, Any] = yaml.safe_load(yaml.safe_dump(RECIPE))
    *parents, last = path.split(".")
    part = recipe
    for parent in parents:
        part = part[parent]
    if value is None:
        part.pop(last)
    else:
        part[last] = value
    return recipe


def test_build(folder: Path) -> None:
    store = build(folder, RECIPE)
    assert [store[i].id for i in range(4)] == ["s1/a", "s1/b", "s2/c", "s3/d"]
    assert [store[i].split for i in range(4)] == ["train", "train", "valid", "test"]
    assert store.groups.tolist() == ["s1", "s1", "s2", "s3"]
    assert store.labels.tolist() == [[1, 0], [0, 0], [0, 1], [0, 0]]
    assert store.intensities is not None
    assert store.intensities.tolist() == [[2.5, 0], [0, 0], [0, 1], [0.5, 0.5]]
    assert store.transcript(2) == "so\nwhat"
    text = [[0, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]]  # oh , no !
    assert store.features("text", 0).tolist() == text
    assert store.features("audio", 1).tolist() == [[1, 5, 7], [3, 5, 0]]
    assert "audio" not in store[3].features
    assert store.manifest.modalities["audio"].cleaning == [
        "absent from 1 samples: they have no features",
        "2 values that were inf or NaN set to 0",
        "constant columns: 1",
    ]


def test_cleaning_by_hand(folder: Path) -> None:
    recipe = changed("modalities.audio.standardise", True)
    recipe["modalities"]["audio"]["drop_columns"] = [1]
    store = build(folder, recipe)
    # training rows: column 0 holds 1, 3, 1, 3; column 2 holds 7 twice and inf twice
    assert store.features("audio", 0).tolist() == [[-1, 0], [1, 0]]
    assert store.features("audio", 2).tolist() == [[3, 0]]
    transform = store.manifest.modalities["audio"].transform
    assert transform is not None
    raw = np.array(AUDIO["c1"])
    np.testing.assert_array_equal(transform.clean(raw, "again").features, store.features("audio", 0))
    assert store.manifest.modalities["audio"].cleaning == [
        "columns dropped: 1",
        "absent from 1 samples: they have no features",
        "2 values that were inf or NaN set to 0",
        "standardised by mean and standard deviation of the training split",
        "constant columns: 1",
    ]


def test_as_released_replaces_negative_infinity_only(folder: Path) -> None:
    np.savez(folder / "a.npz", c1=[[1.0, -np.inf, np.nan]], c2=[[np.inf, 2, 3]])
    store = build(folder, changed("modalities.audio.non_finite", "as-released"))
    np.testing.assert_array_equal(store.features("audio", 0), [[1, 0, np.nan]])
    np.testing.assert_array_equal(store.features("audio", 2), [[np.inf, 2, 3]])
    assert "2 values that were -inf set to 0" in store.manifest.modalities["audio"].cleaning
    tidy = build_store(folder / "r.yaml", folder / "store", overwrite=True)
    assert tidy.manifest.fingerprint == store.manifest.fingerprint


def test_arrays_with_separate_keys(folder: Path) -> None:
    values, keys = np.arange(6.0).reshape(3, 2), np.array(["c3", "c1", "c2"])
    np.savez(folder / "n.npz", feats=values, which=keys)
    np.save(folder / "n.npy", values)
    np.save(folder / "k.npy", keys)
    npz = {"source": "array", "file": "n.npz", "values": "feats", "keys": "which", "column": "clip"}
    npy = {"source": "array", "file": "n.npy", "keys": "k.npy", "column": "clip"}
    store = build(folder, changed("modalities", {"npz": npz, "npy": npy}))
    for m in ("npz", "npy"):
        assert [store.features(m, i).tolist() for i in range(4)] == [[[2, 3]], [[2, 3]], [[4, 5]], [[0, 1]]]


def test_standardization_uses_training_rows_only(folder: Path) -> None:
    random = np.random.default_rng(0)
    steps = {"c1": random.normal(5, 3, (101, 2)), "c2": random.normal(-90, 1, (7, 2)), "c3": np.ones((1, 2))}
    np.savez(folder / "a.npz", **steps)
    store = build(folder, changed("modalities.audio.standardise", True))
    train = store.features("audio", 0)
    np.testing.assert_allclose(train.mean(0), 0, atol=1e-6)
    np.testing.assert_allclose(train.std(0), 1, atol=1e-6)
    expected = (steps["c2"] - steps["c1"].mean(0)) / steps["c1"].std(0)
    np.testing.assert_allclose(store.features("audio", 2), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("tabel", "x", r"unknown key 'tabel'; did you mean 'table'\?"),
        ("split", None, "'split' is missing"),
        ("id", [], "id"),
        ("splits", {"train": "train", "validation": "dev"}, "splits.validation"),
        (
            "modalities.text.source",
            "golve",
            "unknown source 'golve', expected one of 'array', 'columns', 'glove'",
        ),
        ("labels", "sad", "labels: expected a mapping, found 'sad'"),
        (
            "modalities.audio.drop_colums",
            [1],
            r"audio.drop_colums'; did you mean 'modalities.audio.drop_columns'",
        ),
        ("labels.rule", "over 3", "'over 3' is not a comparison such as '> 0'"),
        ("labels.columns", [], "labels.columns"),
        ("modalities.audio.drop_columns", [-1], "modalities.audio.drop_columns.0"),
        ("modalities", {}, "modalities"),
        ("dtype", "int8", "dtype"),
        ("table", "${CARAT_NO_SUCH}/t.csv", "requires the environment variable CARAT_NO_SUCH"),
    ],
)
def test_wrong_recipes(folder: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(folder, changed(path, value))
    assert not (folder / "store").exists()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("table", "no.csv", "no.csv: no such file"),
        ("id", "nome", r"no column 'nome'; did you mean 'name'\?"),
        ("labels.columns", ["sad", "fare"], r"no column 'fare'; did you mean 'fear'\?"),
        (
            "labels.columns",
            ["sad", "transcript"],
            "column 'transcript', data row 1: 'Oh, no!' is not a finite number",
        ),
        ("id", "show", "duplicate id 's1' in data rows 1 and 2"),
        ("splits", {"train": "train", "valid": "dev"}, "row 4 has split 'test', but .* are train, dev"),
        (
            "splits",
            {"train": "train", "valid": "dev", "test": "none"},
            "data row 4 has split 'test', but the recipe's splits are none, train, dev",
        ),
        ("modalities.audio.file", "b.npz", "b.npz: no such file"),
        ("modalities.audio.file", "t.csv", "t.csv: name the column with the keys, keys: COLUMN"),
        ("modalities.audio.column", "name", "source has none of the 4 keys in the table, e.g. 'a'"),
        ("modalities.audio.drop_columns", [3], "drop_columns has column 3, but the source has 3 columns"),
        ("modalities.audio.non_finite", "error", "key 'c1': inf or NaN in column 2"),
        ("modalities.text.file", "a.npz", "a.npz: no array 'vectors'"),
    ],
)
def test_wrong_data(folder: Path, path: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        build(folder, changed(path, value))
    assert "\n" not in str(error.value)
    assert not any(path.name.startswith((".store", "store")) for path in folder.iterdir())


@pytest.mark.parametrize("standardise", [False, True])
def test_different_widths(folder: Path, standardise: bool) -> None:
    np.savez(folder / "a.npz", c1=np.ones((2, 3)), c2=np.ones((4, 1)))
    with pytest.raises(DataError, match="modality 'audio', key 'c2': width 1, expected 3"):
        build(folder, changed("modalities.audio.standardise", standardise))


def test_tokens_without_a_vector_are_counted(folder: Path) -> None:
    store = build(folder, RECIPE)
    assert store.manifest.modalities["text"].cleaning == [
        "4 of 9 tokens (44%) have no vector and became zeros",
        "constant columns: 3, 4",
    ]


def test_duplicate_keys_in_a_recipe(folder: Path) -> None:
    (folder / "r.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(ConfigError, match="line 2: not valid YAML \\(duplicate key 'name'\\)"):
        build_store(folder / "r.yaml", folder / "store")


def test_modality_without_finite_values(folder: Path) -> None:
    np.savez(folder / "a.npz", c1=np.full((2, 3), np.nan), c2=np.full((1, 3), np.inf))
    with pytest.raises(DataError, match="modality 'audio': all values are inf or NaN"):
        build(folder, RECIPE)
    assert not (folder / "store").exists()


def test_a_sample_without_any_modality(folder: Path) -> None:
    with pytest.raises(
        CaratError,
        match=r"split 'test' has no samples: 1 rows without any modality excluded, first data row 4, "
        r"sample 's3/d' \(keys: audio 'c3'\)",
    ):
        build(folder, changed("modalities.text", None))


@pytest.mark.slow
def test_reduced_mosei(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARAT_SHARED", str(shared))
    recipe = Path(__file__).resolve().parents[3] / "recipes" / "mosei_reduced.yaml"
    store = build_store(recipe, tmp_path / "mosei")
    assert store.manifest.splits == {"train": 15_382, "valid": 1_788, "test": 2_319}
    counts = {s: store.labels[store.indices(s)].sum(0).tolist() for s in store.manifest.splits}
    assert counts == {
        "train": [8182, 4146, 3396, 1540, 2853, 1288],
        "valid": [969, 507, 319, 197, 272, 170],
        "test": [1234, 561, 546, 219, 394, 191],
    }
    with_audio = [(store.lengths("audio")[store.indices(s)] > 0).sum() for s in store.manifest.splits]
    assert with_audio == [4389, 508, 768]
    store.verify()


def test_recipe_with_real_word_aligned_sequences(shared: Path, tmp_path: Path) -> None:
    file = shared / "data" / "sequences" / "youtube_mmmo_word_aligned.npz"
    arrays = np.load(file)
    lines = ["id,place,fold,negative,neutral,positive"]
    for i, row in enumerate(arrays["youtube_y"].astype(int).tolist()):
        lines.append(",".join(map(str, [f"y{i}", i, ("train", "train", "valid", "test")[i % 4], *row])))
    (tmp_path / "table.csv").write_text("\n".join(lines))
    recipe = {
        "name": "youtube",
        "table": "table.csv",
        "id": "id",
        "split": "fold",
        "labels": {"columns": ["negative", "neutral", "positive"]},
        "modalities": {
            m: {"source": "array", "file": str(file), "values": f"youtube_{m}", "column": "place"}
            for m in ("text", "audio", "visual")
        },
    }
    store = build(tmp_path, recipe)
    assert len(store) == 95  # all features of one segment are zeros
    assert store.manifest.notes[-1].startswith("1 rows without any modality excluded, first data row")
    for row in range(95):
        place = int(str(store.ids[row])[1:])
        for m in store.modalities:
            expected = np.nan_to_num(arrays[f"youtube_{m}"][place], posinf=0, neginf=0)
            np.testing.assert_array_equal(store.features(m, row), strip_padding(expected))
        assert store.labels[row].tolist() == arrays["youtube_y"][place].tolist()
    widths = {m: x.width for m, x in store.manifest.modalities.items()}
    assert widths == {"text": 300, "audio": 74, "visual": 36}
