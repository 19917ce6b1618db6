from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from carat.data.checks.store import check_store
from carat.data.store import Store, open_store
from carat.data.store.manifest import FileInfo, ModalityInfo, Tokens, Waveform, fingerprint, hash_file
from carat.data.store.store import open_unchanged
from carat.data.store.transform import Transform
from carat.data.store.writer import StoreWriter
from carat.data.synthetic import make_synthetic
from carat.utils.errors import DataError


@pytest.fixture
def copy(store: Store, tmp_path: Path) -> Path:
    return Path(shutil.copytree(store.folder, tmp_path / "copy"))


def test_arrays_are_not_pickled(store: Store) -> None:
    store.features("text", 0)
    data = pickle.dumps(store)
    assert len(data) < 20_000
    restored: Store = pickle.loads(data)
    np.testing.assert_array_equal(restored.features("text", 5), store.features("text", 5))


def test_arrays_are_read_only(store: Store) -> None:
    with pytest.raises(ValueError, match="read-only"):
        store.features("visual", 1)[0] = 0


def test_rows_and_splits(store: Store) -> None:
    rows = np.concatenate([store.indices(split) for split in store.manifest.splits])
    assert sorted(rows.tolist()) == list(range(len(store)))
    assert store[-1].id == store[len(store) - 1].id
    with pytest.raises(IndexError):
        store[len(store)]
    with pytest.raises(DataError, match=r"no split 'tets'; did you mean 'test'\?"):
        store.indices("tets")


def truncate(path: Path) -> None:
    file = path / "features" / "audio.npy"
    with file.open("rb+") as opened:
        opened.truncate(file.stat().st_size - 8)


def empty(path: Path) -> None:
    (path / "labels.npy").write_bytes(b"")


def remove(path: Path) -> None:
    (path / "ids.npy").unlink()


def newer(path: Path) -> None:
    content = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(content | {"schema_version": 99}))


def relabel(path: Path) -> None:
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"happy"', '"merry"'))


def garble(path: Path) -> None:
    (path / "manifest.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, r"audio.npy: truncated: \d+ bytes, expected \d+; build the store again"),
        (empty, r"labels.npy: truncated: 0 bytes"),
        (remove, r"ids.npy: missing; the store is damaged"),
        (newer, r"store schema 99, but this version of carat reads up to 2; upgrade carat"),
        (
            relabel,
            r"manifest.json: altered \(content does not match the fingerprint\); build the store again",
        ),
        (garble, r"manifest.json: not valid JSON"),
    ],
)
def test_damaged_stores_are_refused(copy: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(copy)
    with pytest.raises(DataError, match=message):
        open_store(copy)


@pytest.mark.parametrize("name", ["features/text.npy", "labels.npy", "split.npy", "groups.npy"])
def test_verify_detects_one_changed_byte(copy: Path, name: str) -> None:
    with (copy / name).open("rb+") as file:
        file.seek(-1, 2)
        last = file.read(1)
        file.seek(-1, 2)
        file.write(bytes([last[0] ^ 1]))
    with pytest.raises(DataError, match=rf"{name}: altered:? .*; build the store again"):
        open_store(copy).verify()


def test_folders_that_are_not_stores(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such store"):
        open_store(tmp_path / "nothing")
    with pytest.raises(DataError, match="not a carat store, manifest"):
        open_store(tmp_path)


def reseal(path: Path, **changes: object) -> None:
    """Change the manifest and make its sizes, checksums and fingerprint match, as an attacker would."""
    file = path / "manifest.json"
    content = json.loads(file.read_text()) | changes
    if "files" not in changes:
        content["files"] = {name: hash_file(path / name).model_dump() for name in content["files"]}
    infos = {}
    for m, info in content["modalities"].items():
        parts = {"transform": Transform, "tokens": Tokens, "waveform": Waveform}
        built = {key: part.model_construct(**info[key]) for key, part in parts.items() if info.get(key)}
        infos[m] = ModalityInfo.model_construct(**info | built)
    digests = {name: FileInfo.model_construct(**x) for name, x in content["files"].items()}
    content["fingerprint"] = fingerprint(content["labels"], infos, content["splits"], digests)
    file.write_text(json.dumps(content))


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    """Replace an array by a changed copy."""

    def damage(path: Path) -> None:
        array = np.load(path / name)
        np.save(path / name, change(array.copy()))

    return damage


def at(place: object, value: object) -> Callable[[np.ndarray], np.ndarray]:
    def change(array: np.ndarray) -> np.ndarray:
        array[place] = value
        return array

    return change


def structured(array: np.ndarray) -> np.ndarray:
    return np.zeros(array.shape, dtype=[("a", "f4", (3,)), ("b", [("c", "i8")])])


def with_code(code: int, dtype: str = "U7") -> Callable[[np.ndarray], np.ndarray]:
    """Set the second character of the last text to a code."""

    def change(array: np.ndarray) -> np.ndarray:
        codes = array.astype("U7").view(np.uint32).reshape(-1, 7)
        codes[-1, 1] = code
        order = ">u4" if dtype.startswith(">") else "u4"
        return codes.astype(order).view(dtype).reshape(-1)

    return change


def headed(header: str, version: bytes = b"\x01\x00") -> Callable[[Path], None]:
    """Replace labels.npy by a file with this header."""

    def damage(path: Path) -> None:
        size = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
        (path / "labels.npy").write_bytes(b"\x93NUMPY" + version + size + header.encode() + b"\0" * 99)

    return damage


def header(shape: str, descr: str = "'|u1'") -> Callable[[Path], None]:
    return headed(f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n")


TOKENS = {"tokenizer": "x", "vocabulary": 7, "longest": 5}
AUDIO, AUDIO_OFFSETS = "features/audio.npy", "features/audio_offsets.npy"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (changed("labels.npy", at((3, 2), 7)), "labels.npy: altered: label 7, expected 0 or 1"),
        (
            changed("labels.npy", lambda x: x * np.nan),
            "labels.npy: altered: data type float64, expected uint8",
        ),
        (changed("labels.npy", lambda x: x.astype(bool)), "data type bool, expected uint8"),
        (
            changed("labels.npy", lambda x: x[:, 1:]),
            r"labels.npy: altered: shape \(211, 5\), expected \(211, 6\)",
        ),
        (changed("labels.npy", structured), "labels.npy: altered: data type .*, expected uint8"),
        (
            changed("ids.npy", lambda x: x[[0, 0, *range(2, len(x))]]),
            "ids.npy: altered: 2 samples have the id '",
        ),
        (changed("ids.npy", with_code(0xD800)), "ids.npy: altered: characters that do not exist in Unicode"),
        (changed("ids.npy", with_code(0xDFFF, ">U7")), "ids.npy: altered: characters that do not exist"),
        (changed("groups.npy", with_code(0x110000)), "groups.npy: altered: characters that do not exist"),
        (changed("ids.npy", lambda x: np.arange(len(x))), "ids.npy: altered: data type int64, expected text"),
        (
            changed("ids.npy", lambda x: x.astype(bytes)),
            "ids.npy: altered: data type .S[0-9]+, expected text",
        ),
        (changed("groups.npy", lambda x: x[1:]), "groups.npy: altered: shape"),
        (changed("split.npy", at(0, 2)), "split.npy: altered: .* samples by split, expected"),
        (changed("split.npy", at(0, -1)), "split.npy: altered: .* samples by split, expected"),
        (changed("split.npy", at(0, 3)), "split.npy: altered: .* samples by split, expected"),
        (
            changed("split.npy", lambda x: x.astype(float)),
            "split.npy: altered: data type float64, expected int8",
        ),
        (
            changed(AUDIO, lambda x: x.astype(complex)),
            "audio.npy: altered: data type complex128, expected float32",
        ),
        (changed(AUDIO, lambda x: x.astype(">f4")), "audio.npy: altered: data type >f4, expected float32"),
        (changed(AUDIO, structured), "audio.npy: altered: data type .*, expected float32"),
        (changed(AUDIO_OFFSETS, lambda x: x.astype(float)), "audio_offsets.npy: altered: data type float64"),
        (changed(AUDIO_OFFSETS, at(5, -1)), "audio_offsets.npy: altered: offsets do not match the data"),
        (changed(AUDIO_OFFSETS, at(5, 1 << 60)), "audio_offsets.npy: altered: offsets do not match the data"),
        (changed(AUDIO_OFFSETS, at(-1, 1)), "audio_offsets.npy: altered: offsets do not match the data"),
        (header("(10**18, 6)"), "labels.npy: cannot be read"),
        (header("(999999999999, 6)"), "labels.npy: cannot be read"),
        (header("(-1, 6)"), "labels.npy: "),
        (header("(" * 300 + ")" * 300), "labels.npy: cannot be read"),
        (header("(211, 6)", "'|O'"), "labels.npy: cannot be read"),
        (header("(211, 6)", "[" * 5000 + "]" * 5000), "labels.npy: cannot be read"),
        (headed("{" * 20_000), "labels.npy: cannot be read"),
        (headed("x" * 70_000, b"\x02\x00"), "labels.npy: cannot be read"),
    ],
)
def test_resealed_stores_are_refused(damage: Callable[[Path], None], message: str, copy: Path) -> None:
    damage(copy)
    reseal(copy)
    with pytest.raises(DataError, match=message) as caught:
        open_store(copy)
    assert "\n" not in str(caught.value)


def changed_info(modality: str = "audio", **changes: object) -> Callable[[dict], dict]:
    def change(content: dict) -> dict:
        info = content["modalities"][modality] | changes
        return {"modalities": content["modalities"] | {modality: info}}

    return change


def renamed(old: str, new: str) -> Callable[[dict], dict]:
    return lambda content: {
        "modalities": {new if m == old else m: info for m, info in content["modalities"].items()}
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: {"labels": []}, "labels: expected at least one label"),
        (lambda content: {"labels": ["a"] * 6}, "labels: duplicate label 'a'"),
        (lambda content: {"modalities": {}}, "modalities: expected at least one modality"),
        (changed_info(width=-3), "audio.width: .* greater than 0, found -3"),
        (changed_info(width=10**12), "audio.width: .* less than or equal to"),
        (changed_info(steps=10**15), r"audio.npy: altered: shape .*, expected \(1000000000000000, "),
        (changed_info(dtype="complex64"), "audio.dtype: "),
        (changed_info(dtype="int32"), r"audio: data type int32; tokens are int32, and nothing else is"),
        (changed_info(tokens=TOKENS), r"audio: width \d+, but its specification results in 1"),
        (changed_info(tokens=TOKENS, width=1), r"audio: data type float32; tokens are int32"),
        (changed_info(tokens=TOKENS, waveform={"rate": 9}, width=1), "audio: both tokens and waveform"),
        (changed_info(tokens=TOKENS | {"vocabulary": -1}), r"audio\.tokens\.vocabulary: .*greater than 0"),
        (changed_info(waveform={"rate": 0}), r"audio\.waveform\.rate: .*greater than 0"),
        (changed_info(transform={"width": 3}), r"audio: width \d+, but its specification results in 3"),
        (changed_info(transform={"width": 3, "drop_columns": [-1]}), "drop_columns has columns that are not"),
        (changed_info(transform={"width": 3, "mean": [1.0]}), "mean has 1 values for 3 columns"),
        (
            changed_info(transform={"width": 1, "mean": [1.0], "deviation": [0.0]}),
            r"audio\.transform\.deviation\.0: .*greater than 0",
        ),
        (renamed("audio", "../audio"), r"modality '\.\./audio': names consist of letters"),
        (lambda content: {"splits": {"train": 0}}, "splits: expected at most 127 splits, each with samples"),
        (lambda content: {"splits": {"train": 10**400}}, "altered: shape"),
        (lambda content: {"splits": {f"s{i}": 1 for i in range(300)}}, "splits: expected at most 127 splits"),
        (lambda content: {"splits": content["splits"] | {"train": 11}}, "altered: shape"),
        (lambda content: {"schema_version": 10**400}, "this version of carat reads up to 2"),
        (
            lambda content: {"files": content["files"] | {"/dev/zero": {"bytes": 0, "sha256": ""}}},
            "zero: altered: no file of a store",
        ),
        (
            lambda content: {"files": {k: x for k, x in content["files"].items() if k != "ids.npy"}},
            "ids.npy: altered: not listed in the manifest",
        ),
    ],
)
def test_resealed_manifests_are_refused(change: Callable[[dict], dict], message: str, copy: Path) -> None:
    content = json.loads((copy / "manifest.json").read_text())
    reseal(copy, **change(content))
    with pytest.raises(DataError, match=message):
        open_store(copy)


def test_resealing_alone_is_no_damage(store: Store, copy: Path) -> None:
    reseal(copy)
    assert open_store(copy).manifest == store.manifest


@pytest.mark.parametrize("name", ["manifest.json", "labels.npy", "features/text.npy"])
def test_pipes_and_deep_manifests_never_hang(name: str, copy: Path) -> None:
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises(DataError, match=r"is a named pipe, expected a file"):
        open_store(copy)
    (copy / "manifest.json").unlink()
    (copy / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(DataError, match=r"manifest\.json: not valid JSON"):
        open_store(copy)


def test_ids_with_equal_hashes_are_no_duplicates(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carat.data.store.validation._has_duplicates", lambda ids: True)
    assert len(open_store(copy)) == 211


def test_store_with_the_planned_content_only(copy: Path) -> None:
    planned = open_store(copy).manifest.fingerprint
    assert open_unchanged(copy, planned).manifest.fingerprint == planned
    make_synthetic(copy, samples=211, seed=4, overwrite=True)
    with pytest.raises(DataError, match=r"copy: replaced while in use: fingerprint .*, planned with"):
        open_unchanged(copy, planned)


@pytest.fixture
def spoken(tmp_path: Path) -> Path:
    """A store with transcripts."""
    with StoreWriter(tmp_path / "spoken", "spoken", ["a"], {"text": "x"}, ["train"]) as writer:
        for name in ("one", "two"):
            writer.append(
                name, "train", [1], {"text": np.ones((2, 3))}, transcript=f"{name} é", intensities=[2]
            )
    return tmp_path / "spoken"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            changed("transcripts_offsets.npy", at(-1, 10**9)),
            "transcripts_offsets.npy: altered: offsets do not",
        ),
        (changed("transcripts_offsets.npy", at(1, 99)), "transcripts_offsets.npy: altered: offsets do not"),
        (changed("transcripts.npy", lambda x: x.astype("u4")), "transcripts.npy: altered: data type uint32"),
        (changed("transcripts.npy", lambda x: x[None]), "transcripts.npy: altered: shape"),
        (changed("transcripts.npy", lambda x: x[0]), "transcripts.npy: altered: shape"),
        (
            changed("intensities.npy", lambda x: x.astype(complex)),
            "intensities.npy: altered: data type complex128",
        ),
        (changed("intensities.npy", lambda x: x[:1]), "intensities.npy: altered: shape"),
    ],
)
def test_resealed_transcripts_are_refused(damage: Callable[[Path], None], message: str, spoken: Path) -> None:
    damage(spoken)
    reseal(spoken)
    with pytest.raises(DataError, match=message):
        open_store(spoken)


@pytest.mark.parametrize("name", ["transcripts.npy", "transcripts_offsets.npy"])
def test_transcripts_that_are_not_utf8(name: str, spoken: Path) -> None:
    changed(name, at(0, 0xFF) if name == "transcripts.npy" else at(1, 5))(spoken)
    reseal(spoken)
    opened = open_store(spoken)
    with pytest.raises(DataError, match=r"transcripts\.npy: row 0 is not UTF-8"):
        opened.transcript(0)
    content = next(finding for finding in check_store(opened) if finding.check == "content")
    assert (content.verdict, content.message) == ("fail", "transcripts are not UTF-8; build the store again")


def test_intensities_that_are_not_finite_fail_the_check(spoken: Path) -> None:
    changed("intensities.npy", at(0, np.nan))(spoken)
    reseal(spoken)
    content = next(finding for finding in check_store(open_store(spoken)) if finding.check == "content")
    assert (content.verdict, content.message) == ("fail", "intensities are inf or NaN")
