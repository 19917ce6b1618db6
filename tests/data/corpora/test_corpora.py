"""Import of files in the layout of each dataset: values, IDs, lengths and labels."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.data.corpora.base import strip_padding
from carat.data.corpora.label_table import LabelTable
from carat.data.corpora.registry import FORMATS, Sources, import_data
from carat.data.store import Store
from carat.utils.errors import CaratError, ConfigError, DataError
from tests.data import field_files as files
from tests.data.field_files import COUNTS, DIALOGUES, IEMOCAP_WIDTHS, STEPS, UTTERANCES, WIDTHS


def rows_of(store: Store) -> list[tuple[str, int, int]]:
    """Return split, index in the split and store row of every sample."""
    return [(split, i, int(row)) for split in COUNTS for i, row in enumerate(store.indices(split))]


@pytest.mark.parametrize("form", ["arrays", "lists", "legacy"])
def test_mosei_aligned(tmp_path: Path, form: str) -> None:
    files.aligned(tmp_path / "t.pt", as_lists=form == "lists", legacy=form == "legacy")
    store = import_data("mosei-aligned", tmp_path / "t.pt", tmp_path / "store")
    assert store.label_names == ["happy", "sad", "anger", "surprise", "disgust", "fear"]
    assert dict(store.manifest.splits) == COUNTS
    marked, words = files.labels(), files.lengths()
    for split, i, row in rows_of(store):
        assert store.ids[row] == f"{split}/{i:05d}"
        assert store.labels[row].tolist() == marked[split][i].tolist()
        for m in WIDTHS:
            expected = files.features(split, m, 60, words[split])[i, : words[split][i]]
            np.testing.assert_array_equal(store.features(m, row), expected)
    steps = sum(60 * count for count in COUNTS.values()) - sum(x.sum() for x in words.values())
    assert store.manifest.modalities["text"].cleaning[0].startswith(f"{steps} steps of zeros")
    assert "the file has no video IDs" in store.manifest.notes[0]


def test_padding_can_be_kept(tmp_path: Path) -> None:
    files.aligned(tmp_path / "t.pt")
    store = import_data("mosei-aligned", tmp_path / "t.pt", tmp_path / "store", keep_padding=True)
    assert set(store.lengths("audio").tolist()) == {60}
    assert not store.features("audio", 0)[-1].any()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_mosei_unaligned_by_time(tmp_path: Path, protocol: int) -> None:
    files.unaligned(tmp_path / "n.pkl", protocol)
    files.table(tmp_path / "labels.csv")
    store = import_data(
        "mosei-unaligned", tmp_path / "n.pkl", tmp_path / "store", Sources(labels=tmp_path / "labels.csv")
    )
    marked, words = files.labels(), files.lengths()
    for split, i, row in rows_of(store):
        assert store.ids[row] == f"vid{split}{i // 3}/{i % 3}"
        assert store.groups[row] == f"vid{split}{i // 3}"
        assert store.labels[row].tolist() == marked[split][i].tolist()
        assert store.intensities is not None
        np.testing.assert_allclose(store.intensities[row], marked[split][i] * 0.667, rtol=1e-6)
        for m in WIDTHS:
            whole = files.features(split, m, STEPS[m], words[split], trailing=m == "text")[i]
            expected = strip_padding(whole).copy()
            if m == "audio" and i == 0:
                expected[-1, 3] = 0
            np.testing.assert_array_equal(store.features(m, row), expected)
    assert "3 values that were inf or NaN set to 0" in store.manifest.modalities["audio"].cleaning


def test_mosei_unaligned_by_index(tmp_path: Path) -> None:
    files.unaligned(tmp_path / "n.pkl")
    files.aligned(tmp_path / "t.pt")
    given = Sources(labels=tmp_path / "t.pt", by_index=True)
    store = import_data("mosei-unaligned", tmp_path / "n.pkl", tmp_path / "store", given)
    marked = files.labels()
    for split, i, row in rows_of(store):
        assert store.labels[row].tolist() == marked[split][i].tolist()
        assert store.groups[row] == f"vid{split}{i // 3}"
    assert "labels by index from t.pt; counts, lengths and text features agree" in store.manifest.notes


@pytest.mark.parametrize("order", ["reversed", "shifted", "fewer", "other words"])
def test_pairing_by_index_is_refused_if_the_files_disagree(tmp_path: Path, order: str) -> None:
    orders: dict[str, Any] = {
        "reversed": lambda n: np.arange(n)[::-1],
        "shifted": lambda n: np.roll(np.arange(n), 1),
        "fewer": lambda n: np.arange(n - 1),
        "other words": None,
    }
    files.unaligned(tmp_path / "n.pkl", order=orders[order])
    if order == "other words":
        whole = pickle.loads((tmp_path / "n.pkl").read_bytes())
        for part in whole.values():
            part["text"] = np.where(
                part["text"] != 0, np.random.default_rng(9).normal(size=part["text"].shape), 0
            )
        (tmp_path / "n.pkl").write_bytes(pickle.dumps(whole))
    files.aligned(tmp_path / "t.pt")
    given = Sources(labels=tmp_path / "t.pt", by_index=True)
    with pytest.raises(
        DataError, match=r"cannot be matched by index|their order differs|or their order differ"
    ):
        import_data("mosei-unaligned", tmp_path / "n.pkl", tmp_path / "store", given)
    assert not (tmp_path / "store").exists()


def test_a_table_of_other_labels_is_refused(tmp_path: Path) -> None:
    files.unaligned(tmp_path / "n.pkl")
    files.table(tmp_path / "labels.csv")
    given = Sources(labels=tmp_path / "labels.csv")
    text = (tmp_path / "labels.csv").read_text()
    for altered, message in [
        (text.replace("\nvid", "\nclip"), "only 0 of 29 samples have a row, by video and time"),
        ("\n".join(shifted_sentiment(text)), r"sentiment agrees for only \d of 29 samples"),
        (text.replace("happy", "joy"), "no column 'happy'"),
        (text.replace("video_id", "who"), "no video column, expected one of video_id"),
        (
            text.replace("segment_id", "part").replace("start", "from"),
            "no segment column, expected one of segment_id",
        ),
    ]:
        (tmp_path / "labels.csv").write_text(altered)
        with pytest.raises(DataError, match=message):
            import_data("mosei-unaligned", tmp_path / "n.pkl", tmp_path / "store", given)


def shifted_sentiment(text: str) -> list[str]:
    header, *lines = text.splitlines()
    cells = [line.split(",") for line in lines]
    moved = [cells[(i + 1) % len(cells)][6] for i in range(len(cells))]
    return [header, *(",".join([*row[:6], new, *row[7:]]) for row, new in zip(cells, moved, strict=True))]


def test_samples_without_a_row_are_excluded_and_counted(tmp_path: Path) -> None:
    files.unaligned(tmp_path / "n.pkl")
    files.mmsa(tmp_path / "m.pkl")
    files.table(tmp_path / "labels.csv")
    lines = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "labels.csv").write_text("\n".join(lines[:1] + lines[3:]))
    for format, file in (("mosei-unaligned", "n.pkl"), ("mmsa", "m.pkl")):
        given = Sources(labels=tmp_path / "labels.csv")
        store = import_data(format, tmp_path / file, tmp_path / format, given)
        assert len(store) == sum(COUNTS.values()) - 2
        assert "2 samples without a row in labels.csv excluded" in " ".join(store.manifest.notes)


@pytest.mark.parametrize("with_lengths", [True, False])
def test_mmsa(tmp_path: Path, with_lengths: bool) -> None:
    files.mmsa(tmp_path / "m.pkl", with_lengths)
    files.table(tmp_path / "labels.csv")
    given = Sources(labels=tmp_path / "labels.csv")
    store = import_data("mmsa", tmp_path / "m.pkl", tmp_path / "store", given)
    marked, words = files.labels(), files.lengths()
    for split, i, row in rows_of(store):
        assert store.ids[row] == f"vid{split}{i // 3}/{i % 3}"
        assert store.labels[row].tolist() == marked[split][i].tolist()
        assert store.transcript(row) == f"hello {i}"
        for m in WIDTHS:
            expected = files.features(split, m, STEPS[m], words[split])[i, : words[split][i]]
            np.testing.assert_array_equal(store.features(m, row), expected)


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_m3ed_dialogues(tmp_path: Path, protocol: int) -> None:
    files.m3ed(tmp_path / "m.pkl", protocol)
    store = import_data("m3ed", tmp_path / "m.pkl", tmp_path / "store")
    _, _, emotions, text, audio, visual, sentences = files.dialogue_parts(7)
    assert store.label_names == ["happy", "neutral", "sad", "disgust", "anger", "fear", "surprise"]
    assert {m: x.width for m, x in store.manifest.modalities.items()} == {
        "text": 13,
        "visual": 7,
        "audio": 11,
    }
    for split, names in DIALOGUES.items():
        assert store.ids[store.indices(split)].tolist() == names
        for row in store.indices(split).tolist():
            name = str(store.ids[row])
            assert np.flatnonzero(store.labels[row]).tolist() == sorted(set(emotions[name]))
            for m, source in (("text", text), ("audio", audio), ("visual", visual)):
                np.testing.assert_array_equal(store.features(m, row), np.stack(source[name])[:60])
            assert store.transcript(row) == " ".join(sentences[name][:60])
    assert store.lengths("text").max() == 60 < UTTERANCES["A_2"]


def test_m3ed_as_released_swaps_audio_and_visual(tmp_path: Path) -> None:
    files.m3ed(tmp_path / "m.pkl")
    right = import_data("m3ed", tmp_path / "m.pkl", tmp_path / "right")
    swapped = import_data("m3ed", tmp_path / "m.pkl", tmp_path / "swapped", Sources(as_released=True))
    np.testing.assert_array_equal(swapped.features("visual", 0), right.features("audio", 0))
    np.testing.assert_array_equal(swapped.features("audio", 0), right.features("visual", 0))
    assert "audio and visual swapped, as in the published reader" in swapped.manifest.notes


@pytest.mark.parametrize("format", ["m3ed", "erc"])
def test_utterances(tmp_path: Path, format: str) -> None:
    files.m3ed(tmp_path / "f.pkl") if format == "m3ed" else files.iemocap(tmp_path / "f.pkl")
    store = import_data(format, tmp_path / "f.pkl", tmp_path / "store", Sources(level="utterance"))
    assert len(store) == sum(UTTERANCES.values())
    widths = (13, 11, 7) if format == "m3ed" else (100, 100, 512)
    parts = files.dialogue_parts(7 if format == "m3ed" else 6, widths)
    for row in range(len(store)):
        dialogue, _, index = str(store.ids[row]).rpartition("/")
        assert store.groups[row] == dialogue
        assert np.flatnonzero(store.labels[row]).tolist() == [parts[2][dialogue][int(index)]]
        np.testing.assert_array_equal(store.features("audio", row), parts[4][dialogue][int(index)][None])
        assert store.transcript(row) == f"line {index} of {dialogue}"


def test_iemocap_gets_a_validation_split(tmp_path: Path) -> None:
    parts = [*files.dialogue_parts(6, (100, 100, 512))]
    names = [f"D{i:02d}" for i in range(23)]
    for index in (2, 3, 4, 5, 6):
        example = parts[index]["C_1"]
        parts[index] = dict.fromkeys([*names, "T"], [0, 1, 2, 3, 4, 5, 0] if index == 2 else example)
    (tmp_path / "f.pkl").write_bytes(pickle.dumps((*parts, names, {"T"}), protocol=2))
    store = import_data("erc", tmp_path / "f.pkl", tmp_path / "store")
    assert store.manifest.name == "iemocap-dialogues"
    assert store.label_names == ["happy", "sad", "neutral", "angry", "excited", "frustrated"]
    assert dict(store.manifest.splits) == {"train": 21, "valid": 2, "test": 1}
    assert store.ids[store.indices("valid")].tolist() == ["D09", "D19"]
    assert "2 training dialogues, one in 10, are used for validation" in store.manifest.notes[0]
    assert "recognized as iemocap: emotions happy, sad" in store.manifest.notes[1]
    assert {m: x.width for m, x in store.manifest.modalities.items()} == {
        m: IEMOCAP_WIDTHS[m] for m in ("text", "visual", "audio")
    }


def test_m3ed_is_not_mistaken_for_meld(tmp_path: Path) -> None:
    files.m3ed(tmp_path / "f.pkl")
    with pytest.raises(DataError, match=r"f\.pkl: the parts are in the order of M3ED; import it as m3ed"):
        import_data("erc", tmp_path / "f.pkl", tmp_path / "store")


@pytest.mark.parametrize("format", ["m3ed", "erc"])
def test_few_dialogues_can_be_checked(run, tmp_path: Path, format: str) -> None:  # type: ignore[no-untyped-def]
    files.m3ed(tmp_path / "f.pkl") if format == "m3ed" else files.iemocap(tmp_path / "f.pkl")
    code, out, err = run("data", "check", tmp_path / "f.pkl", "--json")
    assert code in (0, 1), err
    assert json.loads(out)[0] == {"check": "opens", "verdict": "ok", "message": f"as {format}, 6 samples"}


def test_store_that_cannot_be_opened_fails_the_check(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    files.m3ed(tmp_path / "f.pkl")
    store = import_data("m3ed", tmp_path / "f.pkl", tmp_path / "store")
    (store.folder / "split.npy").unlink()
    code, out, _ = run("data", "check", store.folder, "--json")
    assert code == 1
    assert json.loads(out)[0]["verdict"] == "fail"
    assert run("data", "check", store.folder, "--format", "m3ed")[0] == 2


def broken(change: Any) -> bytes:
    parts = list(files.dialogue_parts(7)) + [list(x) for x in DIALOGUES.values()]
    change(parts)
    return pickle.dumps(tuple(parts), protocol=4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop(), "expected a tuple of 10 parts, found 9"),
        (lambda p: p[2].pop("A_1"), "labels of 'A_1': missing, but the dialogue is in a split"),
        (lambda p: p[2]["A_1"].append(1), "text of 'A_1': 3 utterances, but 4 labels"),
        (
            lambda p: p[2]["A_1"].__setitem__(0, 9),
            "labels of 'A_1': emotions from 2 to 9, expected 0 to 6",
        ),
        (
            lambda p: p[2].__setitem__("A_1", ["happy", "sad", "bored"]),
            "unknown emotion 'bored', expected one of happy, neutral",
        ),
        (lambda p: p[3]["A_1"].__setitem__(0, np.zeros(3)), "utterances have features of different width"),
        (lambda p: p[9].append("A_1"), "dialogue 'A_1' is in two splits, train and test"),
        (lambda p: p.__setitem__(3, [1, 2]), "part 3: expected a mapping by dialogue"),
        (lambda p: p.__setitem__(7, 5), "part 7: expected a list of dialogues"),
    ],
)
def test_invalid_dialogues(tmp_path: Path, change: Any, message: str) -> None:
    (tmp_path / "m.pkl").write_bytes(broken(change))
    with pytest.raises(DataError, match=message):
        import_data("m3ed", tmp_path / "m.pkl", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["m.pkl"]


def test_emotions_by_name(tmp_path: Path) -> None:
    (tmp_path / "m.pkl").write_bytes(broken(lambda p: p[2].__setitem__("A_1", ["Happy", "fear", "happy"])))
    store = import_data("m3ed", tmp_path / "m.pkl", tmp_path / "store")
    assert np.flatnonzero(store.labels[0]).tolist() == [0, 5]


def altered(file: Path, change: Any) -> None:
    import torch

    whole = torch.load(file, weights_only=False)
    change(whole)
    torch.save(whole, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("valid"), "no split 'valid'; available: train, test"),
        (lambda w: w["test"].pop("tgt"), "test: no entry 'tgt'; available: src-visual, src-audio, src-text"),
        (lambda w: w["test"]["tgt"].pop(), "test: entries have different lengths: src-text 7, src-visual 7"),
        (
            lambda w: w["train"]["tgt"].__setitem__(3, [2, 11, 3]),
            "sample 3: unexpected token 11; labels are 4 to 9",
        ),
        (lambda w: w["train"]["tgt"].__setitem__(3, ["sad"]), "sample 3: expected numbers, found str"),
        (
            lambda w: w["train"].__setitem__("src-audio", w["train"]["src-audio"][:, :, 0]),
            "width|expected numbers",
        ),
        (
            lambda w: w["train"].__setitem__("src-audio", 5),
            "src-audio: expected an array or a list, found int",
        ),
    ],
)
def test_invalid_aligned_files(tmp_path: Path, change: Any, message: str) -> None:
    files.aligned(tmp_path / "t.pt")
    altered(tmp_path / "t.pt", change)
    with pytest.raises(DataError, match=message):
        import_data("mosei-aligned", tmp_path / "t.pt", tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["t.pt"]


def test_time_stamps_and_constants_are_reported(tmp_path: Path) -> None:
    files.aligned(tmp_path / "t.pt")

    def change(whole: Any) -> None:
        for part in whole.values():
            part["src-visual"][:, :, 2] = np.arange(1, 61)
            part["src-visual"][:, :, 5] = 4.0

    altered(tmp_path / "t.pt", change)
    store = import_data("mosei-aligned", tmp_path / "t.pt", tmp_path / "store")
    assert store.manifest.modalities["visual"].cleaning == [
        "constant columns: 5",
        "columns that only rise, like time stamps: 2",
    ]


def test_required_and_accepted_sources(tmp_path: Path) -> None:
    file = tmp_path / "x"
    for format, given, message in [
        ("mosei", Sources(), "unknown format 'mosei'; available: mosei-aligned, mosei-un"),
        ("mosei-labels", Sources(), "mosei-labels has no features; pass the table to another format"),
        ("mmsa", Sources(), "format mmsa needs --labels"),
        ("m3ed", Sources(by_index=True), "format m3ed does not accept --by-index"),
        ("mosei-aligned", Sources(as_released=True), "does not accept --as-released"),
        ("csd", Sources(), "format csd takes no file before the store"),
    ]:
        with pytest.raises(ConfigError, match=message):
            import_data(format, file, tmp_path / "store", given)
    with pytest.raises(ConfigError, match="format csd needs --"):
        import_data("csd", None, tmp_path / "store")
    with pytest.raises(ConfigError, match="format m3ed needs a file before the store"):
        import_data("m3ed", None, tmp_path / "store")
    for format in set(FORMATS) - {"csd"}:
        with pytest.raises(CaratError, match=r"x: no such file"):
            import_data(
                format,
                file,
                tmp_path / "store",
                Sources(labels=file if "labels" in FORMATS[format].required else None),
            )


def test_commands(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    files.unaligned(tmp_path / "n.pkl")
    files.table(tmp_path / "labels.csv")
    command = ["data", "import", "mosei-unaligned", tmp_path / "n.pkl", tmp_path / "store"]
    code, _, err = run(*command, "--labels", tmp_path / "labels.csv")
    assert code == 0, err
    assert "note: labels by video and time from labels.csv" in err
    assert "audio: 3 values that were inf or NaN set to 0" in err
    code, _, err = run(*command)
    assert code == 2
    assert "needs --labels" in err or "exists" in err
    code, out, err = run("data", "check", tmp_path / "store", "--json")
    assert code in (0, 1), err
    assert {finding["verdict"] for finding in json.loads(out)} <= {"ok", "warn", "fail"}


def test_real_label_table(shared: Path) -> None:
    table = LabelTable(shared / "data" / "mosei" / "segments.csv.gz")
    assert len(table.segments) == 19_489
    folds = [segment.fold for segment in table.segments]
    assert {fold: folds.count(fold) for fold in set(folds)} == {
        "train": 15_382,
        "valid": 1_788,
        "test": 2_319,
    }
    first = table.segments[0]
    assert table.by_segment(first.video, first.segment) is first
    assert table.by_time(first.video, first.start + 0.05, first.end) is first
    assert table.by_time(first.video, first.start + 50, first.end) is None
    assert 0 < np.mean([segment.labels for segment in table.segments]) < 0.5
