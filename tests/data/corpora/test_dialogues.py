"""Dialogue pickles: published layouts are recognized by all of their parts, and others only by a mapping."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.data.corpora.dialogue_layouts import LAYOUTS, parse_label_names, parse_parts
from carat.data.corpora.dialogue_parts import describe_parts
from carat.data.corpora.importing import import_corpus
from carat.data.corpora.registry import Sources, import_data
from carat.data.store import Store, open_store
from carat.utils.errors import ConfigError, DataError
from tests.data import field_files as files
from tests.data.field_files import DIALOGUES, UTTERANCES

LABELS = {
    "iemocap": ["happy", "sad", "neutral", "angry", "excited", "frustrated"],
    "meld": ["neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger"],
    "emorynlp": ["joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared"],
    "dailydialog": ["happy", "neutral", "anger", "sad", "fear", "surprise", "disgust"],
}
EXPECTED: dict[str, tuple[int, dict[str, list[int]]]] = {
    "DialogueRNN iemocap": (2, {"text": [3], "visual": [5], "audio": [4]}),
    "DialogueRNN meld": (2, {"text": [3], "audio": [4]}),
    "MMGCN iemocap": (2, {"text": [3], "visual": [5], "audio": [4]}),
    "MMGCN meld": (2, {"text": [3], "visual": [5], "audio": [4]}),
    "SDT iemocap": (2, {"text": [3], "visual": [8], "audio": [7]}),
    "SDT meld": (2, {"text": [3], "visual": [8], "audio": [7]}),
    "COSMIC iemocap": (1, {"text": [2, 3, 4, 5]}),
    "COSMIC meld": (1, {"text": [3, 4, 5, 6]}),
    "COSMIC emorynlp": (1, {"text": [2, 3, 4, 5]}),
    "COSMIC dailydialog": (1, {"text": [2, 3, 4, 5]}),
}
"""Position of the labels, and positions of the features by modality."""


def write(file: Path, parts: Any) -> Path:
    file.write_bytes(pickle.dumps(parts, protocol=2))
    return file


def imported(file: Path, content: Any, /, **sources: Any) -> Store:
    return import_data("erc", write(file, content), file.with_name("store"), Sources(**sources))


@pytest.mark.parametrize("name", EXPECTED)
@pytest.mark.parametrize("container", [tuple, list])
def test_published_layouts(tmp_path: Path, name: str, container: Any) -> None:
    parts = files.dialogue_layout(name)
    store = imported(tmp_path / "f.pkl", container(parts), level="utterance")
    layout, corpus = name.split()
    label_position, positions = EXPECTED[name]
    assert store.manifest.name == f"{corpus}-utterances"
    assert store.label_names == LABELS[corpus]
    assert store.modalities == list(positions)
    assert len(store) == sum(UTTERANCES.values())
    for row in (0, 5, len(store) - 1):
        dialogue, _, index = str(store.ids[row]).rpartition("/")
        assert np.flatnonzero(store.labels[row]).tolist() == [parts[label_position][dialogue][int(index)]]
        assert store.transcript(row) == f"line {index} of {dialogue}"
        for m, which in positions.items():
            expected = np.mean([parts[i][dialogue][int(index)] for i in which], axis=0, dtype=float)
            np.testing.assert_array_equal(store.features(m, row)[0], expected.astype(np.float32))
    split_of = {id: split for split, ids in DIALOGUES.items() for id in ids}
    if layout == "COSMIC":
        for row in range(len(store)):
            assert row in store.indices(split_of[store.groups[row]])
        assert store.manifest.modalities["text"].source.endswith(
            ":mean-of-parts-" + "-".join(map(str, positions["text"]))
        )
    assert {str(store.groups[row]) for row in store.indices("test")} == set(DIALOGUES["test"])
    (note,) = [note for note in store.manifest.notes if note.startswith("recognized")]
    assert note.startswith(f"recognized as {corpus}: emotions {', '.join(LABELS[corpus])}; ")
    assert f"; layout of {layout}, {len(parts)} parts, " in note


def test_audio_and_text_of_equal_width_are_not_swapped(tmp_path: Path) -> None:
    parts = files.dialogue_layout("DialogueRNN iemocap")
    assert len(parts[3]["A_1"][0]) == len(parts[4]["A_1"][0]) == 100
    store = imported(tmp_path / "f.pkl", parts)
    row = store.ids.tolist().index("C_1")
    np.testing.assert_array_equal(store.features("text", row), np.stack(parts[3]["C_1"]))
    np.testing.assert_array_equal(store.features("audio", row), np.stack(parts[4]["C_1"]))
    assert (
        "text part 3 (100 wide); visual part 5 (512 wide); audio part 4 (100 wide)" in store.manifest.notes[1]
    )


def test_forms_of_published_files(tmp_path: Path) -> None:
    """Arrays for lists, integers for IDs, Python 2 text, sets of IDs and an unused last part."""
    parts = list(files.dialogue_layout("MMGCN iemocap"))
    expected = imported(tmp_path / "a.pkl", tuple(parts))
    number = {id: i for i, id in enumerate(UTTERANCES)}
    for i in range(7):
        parts[i] = {number[id]: value for id, value in parts[i].items()}
    for i in (2, 3, 4, 5):
        parts[i] = {id: np.array(rows) for id, rows in parts[i].items()}
    parts[1] = {id: [x.encode() for x in rows] for id, rows in parts[1].items()}
    parts[7:] = [{number[id] for id in parts[7]}, np.array([number[id] for id in parts[8]]), None]
    import_data("erc", write(tmp_path / "b.pkl", tuple(parts)), tmp_path / "b")

    store = open_store(tmp_path / "b")
    rows = {number[str(id)]: row for row, id in enumerate(expected.ids)}
    for row, id in enumerate(store.ids):
        for m in expected.modalities:
            np.testing.assert_array_equal(store.features(m, row), expected.features(m, rows[int(id)]))
        assert (store.labels[row] == expected.labels[rows[int(id)]]).all()


def test_no_two_layouts_match_the_same_file() -> None:
    for name in EXPECTED:
        parts = describe_parts(files.dialogue_layout(name))
        matching = [f"{x.name} {x.corpus}" for x in LAYOUTS if x.matches(parts)]
        assert matching == [name]


def altered(name: str, change: Any) -> tuple[Any, ...]:
    parts = list(files.dialogue_layout(name))
    change(parts)
    return tuple(parts)


def map_rows(part: dict[str, Any], change: Any) -> dict[str, Any]:
    return {id: [change(row) for row in rows] for id, rows in part.items()}


UNKNOWN: dict[str, tuple[str, Any]] = {
    "other width": ("DialogueRNN iemocap", lambda p: p.__setitem__(3, map_rows(p[3], lambda x: x[:99]))),
    "swapped widths": ("MMGCN iemocap", lambda p: p.__setitem__(slice(4, 6), [p[5], p[4]])),
    "four classes": ("DialogueRNN iemocap", lambda p: p.__setitem__(2, map_rows(p[2], lambda x: x % 4))),
    "more classes": ("DialogueRNN iemocap", lambda p: p.__setitem__(2, map_rows(p[2], lambda x: x + 3))),
    "labels from 1": ("DialogueRNN meld", lambda p: p.__setitem__(2, map_rows(p[2], lambda x: x + 1))),
    "speakers as features": ("MMGCN meld", lambda p: p.__setitem__(3, p[1])),
    "regression": ("DialogueRNN iemocap", lambda p: p.__setitem__(2, map_rows(p[2], lambda x: x + 0.5))),
    "one more part": ("COSMIC iemocap", lambda p: p.insert(2, p[2])),
    "one part less": ("COSMIC emorynlp", lambda p: p.pop(2)),
    "speakers of another corpus": ("DialogueRNN iemocap", lambda p: p.__setitem__(1, files.one_hot(p[1], 9))),
    "splits first": ("COSMIC meld", lambda p: p.insert(0, p.pop())),
    "no features": ("COSMIC iemocap", lambda p: p.__setitem__(slice(2, 6), [None] * 4)),
}


@pytest.mark.parametrize("case", UNKNOWN)
def test_other_layouts_are_refused(tmp_path: Path, case: str) -> None:
    name, change = UNKNOWN[case]
    with pytest.raises(
        DataError, match=r"f\.pkl: unknown layout, .* parts 0: .*; say what they are: --parts "
    ) as error:
        imported(tmp_path / "f.pkl", altered(name, change))
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["f.pkl"]


def test_refusal_describes_position_container_width_and_range(tmp_path: Path) -> None:
    parts = altered("MMGCN meld", lambda p: p.pop(4))
    parts[3]["A_1"] = [np.full(600, -99.5), *parts[3]["A_1"][1:]]
    with pytest.raises(DataError) as error:
        imported(tmp_path / "f.pkl", parts)
    for part in (
        "f.pkl: unknown layout, dict[list] parts 0: text, 1: 9 wide 0/1, 2: integers 0..6, ",
        ", 3: 600 wide -1e+02..",
        ", 4: 342 wide -",
        ", 5: text, 6: list 4 IDs, 7: list 2 IDs, 8: integers 0..2; ",
        "--parts text=3,labels=2,train=6,test=7 --label-names A,B,…",
    ):
        assert part in str(error.value)


def test_name_of_another_corpus_is_refused(tmp_path: Path) -> None:
    parts = files.dialogue_layout("COSMIC dailydialog")
    message = (
        "has the parts of dailydialog in the layout of COSMIC, but the name of emorynlp; rename the file"
    )
    with pytest.raises(DataError, match=message):
        imported(tmp_path / "emorynlp_features_roberta.pkl", parts)
    assert imported(tmp_path / "DailyDialog_features.pkl", parts).label_names == LABELS["dailydialog"]


def test_mapping_of_parts(tmp_path: Path) -> None:
    parts = altered("DialogueRNN meld", lambda p: p.__setitem__(3, map_rows(p[3], lambda x: x[:31])))
    for given in (
        "text=3, audio=4,labels=8,sentences=5,train=6,test=7",
        {"text": 3, "audio": [4], "labels": 8, "sentences": 5, "train": 6, "test": 7},
    ):
        store = import_corpus(
            "erc",
            write(tmp_path / "f.pkl", parts),
            tmp_path / "store",
            sources={
                "parts": given,
                "label_names": ["neutral", "positive", "negative"],
                "level": "utterance",
            },
            overwrite=True,
        )
        assert store.label_names == ["neutral", "positive", "negative"]
        assert store.modalities == ["text", "audio"]
        assert store.manifest.name == "erc-utterances"
        assert store.manifest.modalities["text"].source.endswith(":part-3")
        for row in (0, 3, 20):
            dialogue, _, index = str(store.ids[row]).rpartition("/")
            assert np.flatnonzero(store.labels[row]).tolist() == [parts[8][dialogue][int(index)]]
            np.testing.assert_array_equal(store.features("text", row)[0], parts[3][dialogue][int(index)])


def test_mapping_by_command_averages_parts(run: Any, tmp_path: Path) -> None:
    parts = altered("COSMIC emorynlp", lambda p: p.insert(0, None))
    write(tmp_path / "f.pkl", parts)
    command = ["data", "import", "erc", tmp_path / "f.pkl", tmp_path / "store"]
    mapping = "text=3+5,labels=2,train=8,test=9,valid=10"
    code, _, err = run(*command, "--parts", mapping, "--label-names", "emorynlp")
    assert code == 0, err
    assert "recognized as emorynlp" in err
    assert "text mean of parts 3, 5 (1024 wide)" in err

    store = open_store(tmp_path / "store")
    assert store.label_names == LABELS["emorynlp"]
    row = store.ids.tolist().index("B_1")
    expected = (np.stack(parts[3]["B_1"]) + np.stack(parts[5]["B_1"])) / 2
    np.testing.assert_allclose(store.features("text", row), expected, rtol=1e-6)
    assert row in store.indices("valid")
    code, _, err = run(*command, "--label-names", "emorynlp", "--overwrite")
    assert code == 2
    assert "label names are for a mapping of the parts; add --parts" in err


def test_labels_and_splits_that_are_clear_may_be_omitted(tmp_path: Path) -> None:
    parts = altered("DialogueRNN iemocap", lambda p: p.__setitem__(3, map_rows(p[3], lambda x: x[:31])))
    store = imported(tmp_path / "f.pkl", parts, parts="text=3", label_names="iemocap")
    assert store.manifest.name == "iemocap-dialogues"
    assert sorted(store.ids[store.indices("test")]) == DIALOGUES["test"]


def test_emotions_by_name_need_no_label_names(tmp_path: Path) -> None:
    emotions = ("Calm", "bored", "tense")
    parts = altered(
        "DialogueRNN iemocap", lambda p: p.__setitem__(2, map_rows(p[2], lambda x: emotions[x // 2]))
    )
    given = "text=3,labels=2,train=7,test=8"
    store = imported(tmp_path / "f.pkl", parts, parts=given)
    assert store.label_names == ["bored", "calm", "tense"]
    with pytest.raises(DataError, match="unknown emotion 'tense', expected one of bored, calm"):
        import_data("erc", tmp_path / "f.pkl", tmp_path / "b", Sources(parts=given, label_names="bored,calm"))


@pytest.mark.parametrize(
    ("given", "names", "message"),
    [
        ("text=1,labels=2,train=7,test=8", "meld", r"part 1 dict\[list\] 9 wide 0/1 cannot be text: vectors"),
        ("text=3+1,labels=2,train=7,test=8", "meld", "part 1 .* cannot be text: vectors of only 0 and 1"),
        ("text=0,labels=2,train=7,test=8", "meld", "part 0 .* text cannot be text, which needs vectors"),
        ("text=3+4,labels=2,train=7,test=8", "meld", "text: parts of different width cannot be averaged"),
        ("text=3,labels=2,train=7,test=10", "meld", "no part 10 for test; it has parts 0 to 9"),
        ("text=-1,labels=2,train=7,test=8", "meld", "no part -1 for text"),
        ("text=3,audio=3,labels=2,train=7,test=8", "meld", "part 3 is given twice, as text and audio"),
        ("text=3+3,labels=2,train=7,test=8", "meld", "part 3 is given twice, as text"),
        ("text=3,labels=4,train=7,test=8", "meld", "part 4 .* cannot be labels, .* integers or texts"),
        ("text=3,labels=2,train=7,test=6", "meld", r"part 6 .* cannot be test, which needs IDs"),
        ("text=3,labels=2,sentences=9,train=7,test=8", "meld", "part 9 .* cannot be sentences"),
        ("text=3,train=7,test=8", "meld", "--parts names no labels; found dict.* parts 0: text"),
        ("text=3,labels=2,train=7", "meld", "--parts names no test"),
        ("labels=2,train=7,test=8", "meld", "--parts names no modality"),
        ("text=3,labels=2,train=7,test=8", None, "labels are numbers from 0 to 6: name them"),
        ("text=3,labels=2,train=7,test=8", "iemocap", "numbers from 0 to 6, but --label-names has 6 names"),
        ("text=3,labels=2,train=7,test=7", "meld", "part 7 is given twice, as train and test"),
    ],
)  # fmt: skip
def test_mappings_are_checked(tmp_path: Path, given: str, names: str | None, message: str) -> None:
    with pytest.raises(DataError, match=message):
        imported(tmp_path / "f.pkl", files.dialogue_layout("MMGCN meld"), parts=given, label_names=names)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("text", "expected ROLE=POSITION, such as text=3 or text=2\\+3, found 'text="),
        ("text=three", "found 'text=three'"),
        ("text=3,text=4", "role 'text' is empty or given twice"),
        ("=3", "role '' is empty or given twice"),
        ("labels=2+3", "labels needs one position"),
        ({"text": []}, "text needs a position"),
        ({"text": 1.5}, "found 'text=1.5'"),
        ({3: 4}, "role '3' is empty or given twice"),
        (["text=3"], "expected text or a dict, found list"),
    ],
)
def test_invalid_mappings(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_parts(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("melt", "expected several names separated by commas, found 'melt'; did you mean 'meld'"),
        ("a,,b", "a name is empty or given twice"),
        ("a,a", "a name is empty or given twice"),
        (["a", 1], "a name is empty or given twice"),
        (5, "expected names, found int"),
    ],
)
def test_invalid_label_names(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_label_names(given)


def test_m3ed_refuses_one_hot_features(tmp_path: Path) -> None:
    parts = [*files.dialogue_parts(7), *DIALOGUES.values()]
    parts[5] = files.one_hot(parts[1], 7)
    with pytest.raises(DataError, match=r"part 5 dict\[list\] 7 wide 0/1 cannot be visual: vectors of only"):
        import_data("m3ed", write(tmp_path / "f.pkl", tuple(parts)), tmp_path / "store")


@pytest.mark.parametrize("name", EXPECTED)
def test_other_layouts_are_not_m3ed(run: Any, tmp_path: Path, name: str) -> None:
    file = write(tmp_path / "f.pkl", files.dialogue_layout(name))
    with pytest.raises(DataError):
        import_data("m3ed", file, tmp_path / "store")
    code, out, err = run("data", "check", file, "--json")
    assert code in (0, 1), err
    assert '"message": "as erc, 6 samples"' in out


def test_labels_of_a_smaller_set_are_not_those_of_m3ed(tmp_path: Path) -> None:
    ids, speakers, emotions, *rest = files.dialogue_parts(6, (1024, 1024, 342))
    emotions = {d: [i % 6 for i in range(40)] for d in emotions}
    parts = (ids, speakers, emotions, *rest, *files.DIALOGUES.values())
    with pytest.raises(DataError, match=r"part 2 dict\[list\] integers 0..5 is not the labels of M3ED, 0..6"):
        import_data("m3ed", write(tmp_path / "f.pkl", parts), tmp_path / "store")


def test_dialogues_in_no_split_are_counted(tmp_path: Path) -> None:
    *parts, train, test = files.dialogue_layout("DialogueRNN iemocap")
    store = imported(tmp_path / "f.pkl", (*parts, train[1:], test))
    assert f"1 dialogues in no split left out, e.g. '{train[0]}'" in store.manifest.notes


def test_ids_with_carriage_returns_are_refused(tmp_path: Path) -> None:
    parts = list(files.dialogue_layout("DialogueRNN iemocap"))
    for i in range(7):
        parts[i] = {f"{id}\r": value for id, value in parts[i].items()}
    parts[7:] = [[f"{id}\r" for id in ids] for ids in parts[7:]]
    with pytest.raises(
        DataError, match=r"the ID 'A_1\?' ends in a carriage return: damaged by a transfer in text"
    ):
        imported(tmp_path / "f.pkl", tuple(parts))
