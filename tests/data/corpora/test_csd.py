from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.data.corpora.base import Corpus, CorpusSample, write_corpus
from carat.data.corpora.csd import open_csd
from carat.data.store.manifest import hash_file
from carat.utils.errors import DataError

h5py = pytest.importorskip("h5py")

WORDS, TEXT, VISUAL, AUDIO = 13, 5, 3, 7
"""Words of a video, and feature widths."""
Video = tuple[Any, Any]
"""Features and intervals."""


def spans(steps: int, seconds: float) -> np.ndarray:
    """Consecutive intervals (T, 2)."""
    ends = np.linspace(0, seconds, steps + 1)
    return np.stack([ends[:-1], ends[1:]], axis=1)


def write(file: Path, root: str, videos: dict[str, Video], **settings: Any) -> None:
    with h5py.File(file, "w") as opened:
        group = opened.create_group(root)
        group.create_dataset("metadata/description", data=[b"never read"])
        for id, (features, intervals) in videos.items():
            group.create_dataset(f"data/{id}/features", data=features, **settings)
            group.create_dataset(f"data/{id}/intervals", data=intervals, **settings)


def replace_item(file: Path, path: str, how: Callable[[Any, str], None]) -> None:
    """Delete the item at a path, and call `how` to create another one."""
    with h5py.File(file, "r+") as opened:
        if path in opened:
            del opened[path]
        how(opened, path)


def contents() -> dict[str, dict[str, Video]]:
    """Content of the files: videos a, b, c[0] and c[1], n (no fold) and s (no words)."""
    random = np.random.default_rng(0)
    spoken: dict[str, Video] = {}
    vectors: dict[str, Video] = {}
    visual: dict[str, Video] = {}
    audio: dict[str, Video] = {}
    for id in ("a", "b", "c[0]", "c[1]", "n"):
        words = np.array([[f"{id[0]}{i}".encode()] for i in range(WORDS)])
        words[[0, 4]] = b"sp"
        times = spans(WORDS, 11)
        spoken[id] = words, times
        vectors[id] = random.normal(size=(WORDS, TEXT)), times + 0.0004
        visual[id] = random.normal(size=(31, VISUAL)).astype(np.float32), spans(31, 10) + 0.1
        overlapping = np.sort(random.uniform(0, 10, 47))
        lasting = np.stack([overlapping, overlapping + random.uniform(0, 0.5, 47)], axis=1)
        audio[id] = random.normal(size=(47, AUDIO)), lasting
    visual["a"][0][2] = np.nan, np.inf, 1
    visual["s"] = random.normal(size=(31, VISUAL)), spans(31, 10)
    del audio["b"]
    rows = np.array([[-1, 0, 1 / 3, 0, 0, 2, 0], [2, 3, 0, 0, 1, 0, 0]], dtype=np.float32)
    two, one = np.array([[0, 4.5], [4.5, 11]]), np.array([[2.0, 9.0]])
    labels = {
        "a": (np.vstack([rows, rows[:1]]), np.vstack([two, [[90, 91]]])),
        "b": (rows, two),
        "c[0]": (rows[:1], one),
        "c[1]": (rows[1:], one),
        "n": (rows, two),
        "s": (rows, two),
    }
    return {"words": spoken, "text": vectors, "visual": visual, "audio": audio, "labels": labels}


FOLDS = {"train": ["a", "s", "elsewhere"], "dev": ["b"], "test": ["c"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, videos in contents().items():
        write(tmp_path / f"{name}.csd", f"All {name}", videos)
    (tmp_path / "folds.json").write_text(json.dumps(FOLDS))
    return tmp_path


def opened(folder: Path, folds: str = "folds.json", **changes: Any) -> Corpus:
    options = {
        "modalities": {"visual": folder / "visual.csd", "audio": folder / "audio.csd"},
        "text": folder / "text.csd",
        **changes,
    }
    return open_csd(folder / "words.csd", folder / "labels.csd", folder / folds, **options)


def by_id(corpus: Corpus) -> dict[str, CorpusSample]:
    return {sample.id: sample for sample in corpus.samples}


def kept_words(id: str, start: float, end: float) -> list[int]:
    """Indices of the words of a segment, in a loop."""
    words, times = contents()["words"][id]
    return [
        i for i in range(WORDS) if words[i, 0] != b"sp" and start <= (times[i, 0] + times[i, 1]) / 2 < end
    ]


def slow_mean(frames: Video, start: float, end: float) -> list[float]:
    """Mean of each column over the frames that overlap a word, without inf and NaN, in a loop."""
    features, times = frames
    means = []
    for column in range(features.shape[1]):
        values = [
            float(features[t, column])
            for t in range(len(features))
            if min(times[t, 1], end) - max(times[t, 0], start) > 0 and np.isfinite(features[t, column])
        ]
        means.append(sum(values) / len(values) if values else 0.0)
    return means


SEGMENTS = {
    "a/0": ("a", 0, 4.5),
    "a/1": ("a", 4.5, 11),
    "b/0": ("b", 0, 4.5),
    "b/1": ("b", 4.5, 11),
    "c[0]/0": ("c[0]", 2, 9),
    "c[1]/0": ("c[1]", 2, 9),
}


def test_aligned_means(folder: Path) -> None:
    files = contents()
    samples = by_id(opened(folder))
    assert list(samples) == list(SEGMENTS)
    for id, (video, start, end) in SEGMENTS.items():
        kept = kept_words(video, start, end)
        features = samples[id].features
        assert list(features) == [m for m in ("text", "visual", "audio") if video in files[m]]
        np.testing.assert_array_equal(features["text"], files["text"][video][0][kept])
        for m in set(features) - {"text"}:
            times = files["words"][video][1][kept]
            expected = [slow_mean(files[m][video], *word) for word in times]
            np.testing.assert_allclose(features[m], expected, rtol=1e-6, atol=1e-7)


def test_means_by_hand(folder: Path) -> None:
    times = np.array([[0, 1], [1, 2], [2, 4], [4, 4], [6, 7], [8, 9.0]])
    frames = np.array([[0.0, 5.0], [0.5, 1.5], [1.5, 2.0], [4.0, 4.0], [7.0, 8.0]])
    values = np.array([[1, 10], [3, np.nan], [5, -np.inf], [7, 70], [9, 90]])
    words = np.array([[x] for x in (b"p", b"q", b"r", b"s", b"t", b"u")])
    write(folder / "words.csd", "w", {"a": (words, times)})
    order = [4, 0, 2, 1, 3]  # frames are not sorted in the file
    write(folder / "visual.csd", "v", {"a": (values[order], frames[order])})
    write(folder / "labels.csd", "l", {"a": (np.zeros((1, 7)), np.array([[0, 9.0]]))})
    (sample,) = opened(folder, text=None, modalities={"visual": folder / "visual.csd"}).samples
    # the first frame overlaps the first three words; words of zero length and in gaps get zeros
    assert sample.features["visual"].tolist() == [[2, 10], [3, 10], [1, 10], [0, 0], [0, 0], [0, 0]]


def test_unaligned(folder: Path) -> None:
    files = contents()
    corpus = opened(folder, aligned=False)
    samples = by_id(corpus)
    assert list(samples) == [*SEGMENTS, "s/0", "s/1"]
    for id, (video, start, end) in {**SEGMENTS, "s/1": ("s", 4.5, 11)}.items():
        for m in ("visual", "audio"):
            if video in files[m]:
                frames, times = files[m][video]
                inside = [t for t in range(len(frames)) if start <= times[t].mean() < end]
                np.testing.assert_array_equal(samples[id].features[m], frames[inside])
    np.testing.assert_array_equal(
        samples["a/1"].features["text"], files["text"]["a"][0][kept_words("a", 4.5, 11)]
    )
    assert list(samples["s/0"].features) == ["visual"]
    assert samples["s/0"].transcript == ""
    assert corpus.notes[-1] == "1 segments without words or frames excluded, e.g. 'a/2'"


def test_labels_groups_and_transcripts(folder: Path) -> None:
    corpus = opened(folder)
    assert corpus.name == "labels"
    assert list(corpus.labels) == ["happy", "sad", "anger", "surprise", "disgust", "fear"]
    assert corpus.count == 9
    expected = f"csd:{hash_file(folder / 'audio.csd').sha256[:12]}"
    assert list(corpus.sources) == ["text", "visual", "audio"]
    assert corpus.sources["audio"] == f"{expected}:aligned"
    assert opened(folder, aligned=False).sources["audio"] == expected
    samples = by_id(corpus)
    assert samples["a/0"].labels.tolist() == [0, 1, 0, 0, 1, 0]
    assert samples["a/0"].intensities is not None
    assert samples["a/0"].intensities.tolist() == [0, np.float32(1 / 3), 0, 0, 2, 0]
    assert samples["c[1]/0"].labels.tolist() == [1, 0, 0, 1, 0, 0]
    assert samples["a/0"].transcript == "a1 a2 a3"
    assert samples["a/1"].transcript == "a5 a6 a7 a8 a9 a10 a11 a12"
    assert [sample.group for sample in samples.values()] == ["a", "a", "b", "b", "c", "c"]
    assert [sample.split for sample in samples.values()] == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2
    assert corpus.notes == [
        "1 videos without a fold excluded, e.g. 'n'",
        "text: 1 videos without a sequence",
        "audio: 2 videos without a sequence",
        "3 segments without words or frames excluded, e.g. 'a/2'",
    ]


@pytest.mark.parametrize(("video", "fold"), [("video_id", "fold"), ("video", "split")])
def test_folds_from_a_table(folder: Path, video: str, fold: str) -> None:
    rows = ["a,train", "a,train", "b,dev", "c[0],test", "c[1],test", "n,"]
    (folder / "folds.csv").write_text("\n".join([f"{video},{fold}", *rows]))
    samples = by_id(opened(folder, "folds.csv"))
    assert [sample.split for sample in samples.values()] == ["train"] * 2 + ["valid"] * 2 + ["test"] * 2


def test_segments_use_the_entry_of_their_video(folder: Path) -> None:
    """Words and frames of `c` are used for the segments `c[0]` and `c[1]`."""
    files = contents()
    for name in ("words", "text", "visual", "audio"):
        videos = {"c" if id == "c[0]" else id: x for id, x in files[name].items() if id != "c[1]"}
        write(folder / f"{name}.csd", name, videos)
    samples = by_id(opened(folder))
    for m in ("text", "visual", "audio"):
        np.testing.assert_array_equal(samples["c[0]/0"].features[m], samples["c[1]/0"].features[m])


def test_word_vectors_without_silence(folder: Path) -> None:
    files = contents()
    expected = by_id(opened(folder))
    sounds = [i for i in range(WORDS) if i not in (0, 4)]
    write(
        folder / "text.csd", "t", {id: (x[sounds], times[sounds]) for id, (x, times) in files["text"].items()}
    )
    for id, sample in by_id(opened(folder)).items():
        np.testing.assert_array_equal(sample.features["text"], expected[id].features["text"])


@pytest.mark.parametrize(
    "settings", [{"compression": "gzip", "shuffle": True, "fletcher32": True}, {"compression": "lzf"}]
)
def test_compressed_files(folder: Path, settings: dict[str, Any]) -> None:
    expected = by_id(opened(folder))
    for name, videos in contents().items():
        write(folder / f"{name}.csd", name, videos, **settings)
    for id, sample in by_id(opened(folder)).items():
        for m, x in sample.features.items():
            np.testing.assert_array_equal(x, expected[id].features[m])


def test_words_beyond_ascii(folder: Path) -> None:
    words = np.array([[word.encode()] for word in ["läuft", "日本", "", *"abcdefghij"]])
    write(folder / "words.csd", "w", {"a": (words, spans(WORDS, 11))})
    assert by_id(opened(folder, text=None))["a/0"].transcript == "läuft 日本  a b"


def test_import(folder: Path) -> None:
    expected = by_id(opened(folder))
    store = write_corpus(opened(folder), folder / "store", keep_padding=True)
    assert store.manifest.splits == {"train": 2, "valid": 2, "test": 2}
    assert [store[i].id for i in range(6)] == list(SEGMENTS)
    for i, (id, sample) in enumerate(expected.items()):
        assert store[i].id == id
        assert store[i].features.keys() == sample.features.keys()
        for m, x in sample.features.items():
            np.testing.assert_array_equal(store.features(m, i), x.astype(np.float32))
    assert store.transcript(1) == "a5 a6 a7 a8 a9 a10 a11 a12"
    assert "3 segments without words or frames excluded, e.g. 'a/2'" in store.manifest.notes


def test_files_are_closed_between_samples(folder: Path) -> None:
    samples = iter(opened(folder).samples)
    next(samples)
    for name in ("words", "text", "visual", "audio", "labels"):
        h5py.File(folder / f"{name}.csd", "r+").close()
    next(samples)


# Refusals


def soft(group: Any, name: str) -> None:
    group[name] = h5py.SoftLink("/elsewhere")


def to_another_file(group: Any, name: str) -> None:
    group[name] = h5py.ExternalLink("labels.csd", "/")


def outside(group: Any, name: str) -> None:
    group.create_dataset(name, (WORDS, TEXT), "f4", external=[("passwords", 0, h5py.h5f.UNLIMITED)])


def virtual(group: Any, name: str) -> None:
    layout = h5py.VirtualLayout((WORDS, TEXT), "f4")
    layout[:] = h5py.VirtualSource("labels.csd", "x", (WORDS, TEXT))
    group.create_virtual_dataset(name, layout)


def huge(group: Any, name: str) -> None:
    group.create_dataset(name, (2**40, TEXT), "f4", chunks=(1009, TEXT))


def huge_chunks(group: Any, name: str) -> None:
    group.create_dataset(name, (WORDS, TEXT), "f8", chunks=(2**27, 1), maxshape=(None, TEXT))


def references(group: Any, name: str) -> None:
    group.create_dataset(name, (WORDS, TEXT), h5py.ref_dtype)


def scaled(group: Any, name: str) -> None:
    group.create_dataset(name, data=np.ones((WORDS, TEXT), dtype=np.int32), scaleoffset=0)


def compressed_twice(group: Any, name: str) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((WORDS, TEXT))
    settings.set_deflate(9)
    settings.set_deflate(9)
    space = h5py.h5s.create_simple((WORDS, TEXT))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, settings)


def bomb(group: Any, name: str) -> None:
    dataset = group.create_dataset(
        name, (WORDS, TEXT), "f4", chunks=(WORDS, TEXT), compression="gzip", fletcher32=True
    )
    deflate = zlib.compressobj(9)
    blocks = [deflate.compress(bytes(1 << 20)) for _ in range(101)]
    dataset.id.write_direct_chunk((0, 0), b"".join([*blocks, deflate.flush()]))


def lzf_bomb(group: Any, name: str) -> None:
    dataset = group.create_dataset(name, (WORDS, TEXT), "f4", chunks=(WORDS, TEXT), compression="lzf")
    dataset.id.write_direct_chunk((0, 0), bytes(1 << 20))


def too_short(group: Any, name: str) -> None:
    dataset = group.create_dataset(name, (WORDS, TEXT), "f4", chunks=(WORDS, TEXT), fletcher32=True)
    dataset.id.write_direct_chunk((0, 0), bytes(3))


def shuffled_last(group: Any, name: str) -> None:
    settings = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    settings.set_chunk((WORDS, TEXT))
    settings.set_deflate(9)
    settings.set_shuffle()
    space = h5py.h5s.create_simple((WORDS, TEXT))
    h5py.h5d.create(group.id, name.encode(), h5py.h5t.IEEE_F32LE, space, settings)


def array(values: Any) -> Callable[[Any, str], None]:
    return lambda group, name: group.create_dataset(name, data=values)


def delete(group: Any, name: str) -> None:
    pass


@pytest.mark.parametrize(
    ("name", "path", "how", "message"),
    [
        ("text", "All text/data/a", soft, "text.csd, All text/data/a: SoftLink refused"),
        ("text", "All text/data/a/features", to_another_file, "a/features: ExternalLink refused"),
        ("labels", "All labels", to_another_file, "labels.csd, All labels: ExternalLink refused"),
        ("words", "All words/data", soft, "words.csd, All words/data: SoftLink refused"),
        ("text", "All text/data/a/features", outside, "a/features: external storage and virtual"),
        ("text", "All text/data/a/features", virtual, "a/features: external storage and virtual"),
        ("text", "All text/data/a/features", huge, r"\(1099511627776, 5\) in chunks .* takes 2199023"),
        ("text", "All text/data/a/features", huge_chunks, r"in chunks of \(134217728, 1\) takes 1073741824"),
        ("text", "All text/data/a/features", scaled, "a/features: filters 6; expected shuffle"),
        ("text", "All text/data/a/features", compressed_twice, "a/features: filters gzip, gzip; expected"),
        (
            "text",
            "All text/data/a/features",
            bomb,
            "chunk decompresses to more than the 260 bytes of its shape",
        ),
        (
            "text",
            "All text/data/a/features",
            lzf_bomb,
            "lzf chunk of 1048576 bytes may decompress to any size",
        ),
        ("text", "All text/data/a/features", too_short, "chunk of 3 bytes is too short for its checksum"),
        ("text", "All text/data/a/features", shuffled_last, "a/features: filters gzip, shuffle; expected"),
        ("text", "All text/data/a/features", delete, "a/features: missing"),
        ("text", "All text/data/a/intervals", delete, "a/intervals: missing"),
        ("labels", "All labels/data", delete, "labels.csd, All labels/data: missing"),
        ("labels", "more", array([1]), "labels.csd: expected one group at the root, found 2"),
        ("labels", "All labels", array([1]), "All labels: expected a Group, found a Dataset"),
        ("text", "All text/data/a/features", array(3.0), r"a/features: expected two axes, found \(\)"),
        ("text", "All text/data/a/features", array(h5py.Empty("f4")), "expected two axes, found None"),
        (
            "text",
            "All text/data/a/features",
            array(np.full((WORDS, 1), b"x")),
            r"expected numbers, found \|S1",
        ),
        (
            "text",
            "All text/data/a/features",
            references,
            "a/features: expected numbers, found object",
        ),
        (
            "words",
            "All words/data/a/features",
            array(np.ones((WORDS, 1))),
            "expected fixed-length text, found float64",
        ),
        ("words", "All words/data/a/features", array(np.full((WORDS, 1), b"\xff")), "a/features: not UTF-8"),
        (
            "words",
            "All words/data/a/features",
            array(np.full((WORDS, 2), b"a")),
            "width 2, expected 1 word per step",
        ),
        (
            "words",
            "All words/data/a/features",
            array([["any"]] * WORDS),
            "expected fixed-length text, found object",
        ),
        ("labels", "All labels/data/a/features", array(np.zeros((3, 5))), "width 5, expected 7: sentiment"),
        (
            "labels",
            "All labels/data/a/features",
            array(np.full((3, 7), np.nan)),
            "inf or NaN in the intensities",
        ),
        ("labels", "All labels/data/a/features", array(np.zeros((2, 7))), "2 features, but 3 intervals"),
        ("visual", "All visual/data/a/intervals", array(np.zeros((31, 3))), "width 3, expected 2: start"),
        (
            "visual",
            "All visual/data/a/intervals",
            array(np.full((31, 2), np.inf)),
            "a/intervals: expected times in seconds, found inf",
        ),
        (
            "text",
            "All text/data/a/intervals",
            array(spans(WORDS, 11) + 0.01),
            r"text/data/a/intervals: intervals differ from the words of .*/data/a by up to 0\.010 s, "
            r"expected at most 0\.001 s",
        ),
    ],
)
def test_refusals(folder: Path, name: str, path: str, how: Callable[[Any, str], None], message: str) -> None:
    replace_item(folder / f"{name}.csd", path, how)
    with pytest.raises(DataError, match=message) as error:
        list(opened(folder).samples)
    assert str(error.value).startswith(str(folder / f"{name}.csd"))
    assert "\n" not in str(error.value)


def test_missing_word_vectors(folder: Path) -> None:
    write(folder / "text.csd", "t", {"a": (np.ones((2, TEXT)), spans(2, 1))})
    with pytest.raises(DataError, match=r"2 vectors for the 13 words of .*, 11 of them without silence"):
        list(opened(folder).samples)


def test_intervals_that_all_overlap(folder: Path) -> None:
    many = 10_007
    both = np.tile([0.0, 1.0], (many, 1))
    write(folder / "words.csd", "w", {"a": (np.full((many, 1), b"w"), both)})
    write(folder / "visual.csd", "v", {"a": (np.ones((many, 1)), both)})
    with pytest.raises(DataError, match=r"visual.csd, v/data/a: more than 67108864 overlaps"):
        list(opened(folder, text=None, modalities={"visual": folder / "visual.csd"}).samples)


@pytest.mark.parametrize("name", ["words", "text", "visual", "labels"])
def test_corrupt_files(folder: Path, name: str) -> None:
    file = folder / f"{name}.csd"
    whole = file.read_bytes()
    for content in (b"", b"not HDF5", whole[: len(whole) // 2]):
        file.write_bytes(content)
        with pytest.raises(DataError, match=f"{name}.csd: cannot be read as HDF5"):
            opened(folder)
    file.unlink()
    with pytest.raises(DataError, match=f"{name}.csd: no such file"):
        opened(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f.json", '{"train": ["a"], "test": ["b", "a[1]"]}', "video 'a' is in two folds, train and test"),
        ("f.csv", "video,fold\na,train\na,dev\n", "video 'a' is in two folds, train and valid"),
        ("f.json", '{"train": ["a"], "tset": ["b"]}', "f.json: unknown fold 'tset', expected one of train"),
        ("f.json", '{"train": "a"}', "expected lists of IDs by fold"),
        ("f.json", '{"train": [["a"]]}', "expected lists of IDs by fold"),
        ("f.json", "{", "f.json: cannot be read as JSON"),
        ("f.json", "[" * 100_000, "f.json: cannot be read as JSON"),
        ("f.json", '{"train": ["none"]}', "labels.csd: no video has both a fold and a segment"),
        ("f.csv", "vid,fold\na,train\n", "no column 'video_id'"),
        ("f.csv", "video,set\na,train\n", "no column 'fold'"),
    ],
)
def test_invalid_folds(folder: Path, name: str, content: str, message: str) -> None:
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        opened(folder, name)
    with pytest.raises(DataError, match=r"absent.json: cannot be read as JSON"):
        opened(folder, "absent.json")


def test_modalities(folder: Path) -> None:
    with pytest.raises(DataError, match="pass word vectors as text, not as a modality"):
        opened(folder, modalities={"text": folder / "text.csd"})
    with pytest.raises(DataError, match="words are not features; add word vectors"):
        opened(folder, modalities={}, text=None)


def test_without_h5py(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(DataError, match=r"needs the extra: pip install 'carat-emotion\[csd\]'"):
        opened(folder)


def test_mutated_files(folder: Path) -> None:
    random = np.random.default_rng(0)
    for name, videos in contents().items():
        write(folder / f"{name}.csd", name, {"a": videos["a"]})
    originals = {name: (folder / f"{name}.csd").read_bytes() for name in contents()}
    refused = 0
    for _ in range(200):
        name = random.choice(list(originals))
        raw = np.frombuffer(originals[name], dtype=np.uint8).copy()
        places = random.integers(0, len(raw), random.choice([1, 4, 16]))
        raw[places] = random.integers(0, 256, len(places))
        (folder / f"{name}.csd").write_bytes(raw.tobytes())
        try:
            list(opened(folder, aligned=bool(random.integers(2))).samples)
        except DataError:
            refused += 1
        (folder / f"{name}.csd").write_bytes(originals[name])
    assert refused > 20
