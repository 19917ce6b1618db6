"""Annotation files of scored clips, read back by the programs' own readers and by carat."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carat.features.clip import Clip
from carat.features.media import MediaInfo, Track
from carat.features.transcript_files import read_transcript
from carat.features.words import Word, spread
from carat.inference.clips.annotations import ANNOTATION_WRITERS, write_eaf, write_textgrid, write_webvtt
from carat.inference.clips.timeline import ScoredSegment, Timeline
from carat.inference.prediction import Prediction
from tests.fuzzing import FUZZ

pympi = pytest.importorskip("pympi")
webvtt = pytest.importorskip("webvtt")
textgrid = pytest.importorskip("praatio.textgrid")

VIDEO = Track(codec="h264", rate=25, width=640, height=360)
Annotation = tuple[int, int, str]
HOSTILE = (
    "a \"b\" 'c' & <d> </d> ]]> --> item [1]: intervals [2]:\n\n\nxmin = 5\r\n\0\x1b\ud800 é 日本 \u200d"
)
CLEANED = "a \"b\" 'c' & <d> </d> ]]> --> item [1]: intervals [2]: xmin = 5 \ufffd\ufffd\ufffd é 日本 \u200d"


HAPPY = {"happy": 0.832, "sad": 0.107}


def said(
    start: float,
    end: float,
    text: str,
    speaker: str = "",
    scores: dict[str, float] = HAPPY,
    words: Sequence[Word] | None = None,
) -> ScoredSegment:
    labels = [name for name, score in scores.items() if score > 0.5]
    words = spread(text, start, end) if words is None else words
    return ScoredSegment(start, end, text, speaker, Prediction(scores, labels, {}, text), words)


def timeline(*segments: ScoredSegment, file: Path = Path("clip.mp4"), duration: float = 13.0) -> Timeline:
    info = MediaInfo(format="mp4", duration=duration, audio=None, video=VIDEO)
    labels = segments[0].prediction.scores if segments else {"happy": 0.5, "sad": 0.5}
    return Timeline(
        Clip(file, info, duration, {}), "my-run", dict.fromkeys(labels, 0.5), ["text"], list(segments)
    )


DIALOG = timeline(
    said(0.5, 2.0, "So glad", "Ann"),
    said(1.5, 3.0, "Me too, though", "Ben", {"happy": 0.4, "sad": 0.6}),
    said(5.0, 7.25, "Well", "Ann", {"happy": 0.9, "sad": 0.8}),
)


def read_elan(file: Path) -> dict[str, list[Annotation]]:
    """Annotations by tier as pympi reads them; those of annotations have the times of their parents."""
    eaf = pympi.Elan.Eaf(str(file))
    return {
        name: sorted(annotation[:3] for annotation in eaf.get_annotation_data_for_tier(name))
        for name in eaf.get_tier_names()
    }


def read_praat(file: Path) -> dict[str, list[Annotation]]:
    grid = textgrid.openTextgrid(str(file), includeEmptyIntervals=False, reportingMode="error")
    return {
        tier.name: [(round(x.start * 1000), round(x.end * 1000), x.label) for x in tier.entries]
        for tier in grid.tiers
    }


def check_structure(file: Path) -> ElementTree.Element:
    """What ELAN's schema and its constraints ask of a file."""
    root = ElementTree.parse(file).getroot()
    tags = [child.tag for child in root]
    order = ["HEADER", "TIME_ORDER", "TIER", "LINGUISTIC_TYPE", "CONSTRAINT"]
    assert tags == sorted(tags, key=order.index)
    assert tags[:2] == order[:2]
    assert {"AUTHOR", "VERSION", "FORMAT"} < set(root.keys())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", root.get("DATE", ""))
    assert root.find("HEADER").get("TIME_UNITS") == "milliseconds"  # type: ignore[union-attr]

    slots = {x.attrib["TIME_SLOT_ID"]: int(x.attrib["TIME_VALUE"]) for x in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    ids = [*slots, *(x.get("ANNOTATION_ID") for x in root.iter() if x.get("ANNOTATION_ID"))]
    assert len(ids) == len(set(ids))
    assert len(slots) == len(root.findall("TIME_ORDER/TIME_SLOT"))
    used = {
        x.attrib[key]
        for x in root.iter("ALIGNABLE_ANNOTATION")
        for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2")
    }
    assert used == set(slots)

    stereotypes = {x.get("STEREOTYPE") for x in root.iter("CONSTRAINT")}
    types = {x.attrib["LINGUISTIC_TYPE_ID"]: x for x in root.iter("LINGUISTIC_TYPE")}
    spans: dict[str, list[tuple[int, int]]] = {}
    owners: dict[str, str] = {}
    for tier in root.iter("TIER"):
        name, parent = tier.attrib["TIER_ID"], tier.get("PARENT_REF")
        assert name not in spans
        spans[name] = []
        kind = types[tier.attrib["LINGUISTIC_TYPE_REF"]]
        constraint = kind.get("CONSTRAINTS")
        assert (parent is None) == (constraint is None)
        assert constraint is None or constraint in stereotypes
        aligned = kind.get("TIME_ALIGNABLE") == "true"
        assert aligned == (constraint != "Symbolic_Association")
        for annotation in tier.iterfind("ANNOTATION/*"):
            owners[annotation.attrib["ANNOTATION_ID"]] = name
            assert annotation.tag == ("ALIGNABLE_ANNOTATION" if aligned else "REF_ANNOTATION")
            assert [child.tag for child in annotation] == ["ANNOTATION_VALUE"]
            if aligned:
                refs = annotation.attrib["TIME_SLOT_REF1"], annotation.attrib["TIME_SLOT_REF2"]
                spans[name].append((slots[refs[0]], slots[refs[1]]))
            else:
                assert owners[annotation.attrib["ANNOTATION_REF"]] == parent
        for (_, end), (start, _) in zip(spans[name], spans[name][1:], strict=False):
            assert end <= start
        assert all(start < end for start, end in spans[name])
        if constraint == "Included_In":
            assert parent is not None
            for start, end in spans[name]:
                assert any(a <= start and end <= b for a, b in spans[parent])
    return root


def test_elan_has_tiers_for_each_speaker(tmp_path: Path) -> None:
    write_eaf(DIALOG, tmp_path / "a.eaf")
    check_structure(tmp_path / "a.eaf")
    assert read_elan(tmp_path / "a.eaf") == {
        "transcript@Ann": [(500, 2000, "So glad"), (5000, 7250, "Well")],
        "words@Ann": [(500, 1062, "So"), (1062, 2000, "glad"), (5000, 7250, "Well")],
        "emotions@Ann": [(500, 2000, "happy"), (5000, 7250, "happy, sad")],
        "happy@Ann": [(500, 2000, "0.83"), (5000, 7250, "0.90")],
        "sad@Ann": [(500, 2000, "0.11"), (5000, 7250, "0.80")],
        "transcript@Ben": [(1500, 3000, "Me too, though")],
        "words@Ben": [(1500, 1821, "Me"), (1821, 2250, "too,"), (2250, 3000, "though")],
        "emotions@Ben": [(1500, 3000, "sad")],
        "happy@Ben": [(1500, 3000, "0.40")],
        "sad@Ben": [(1500, 3000, "0.60")],
    }
    eaf = pympi.Elan.Eaf(str(tmp_path / "a.eaf"))
    assert eaf.tiers["happy@Ben"][2]["PARTICIPANT"] == "Ben"
    assert eaf.tiers["happy@Ben"][2]["PARENT_REF"] == "transcript@Ben"
    assert ("run", "my-run") in eaf.properties


def test_praat_has_the_same_tiers(tmp_path: Path) -> None:
    write_eaf(DIALOG, tmp_path / "a.eaf")
    write_textgrid(DIALOG, tmp_path / "a.TextGrid")
    grid = read_praat(tmp_path / "a.TextGrid")
    assert list(grid)[:3] == ["Ann - transcript", "Ann - words", "Ann - emotions"]
    by_elan = {" - ".join(reversed(name.split("@"))): x for name, x in read_elan(tmp_path / "a.eaf").items()}
    assert grid == by_elan
    assert textgrid.openTextgrid(str(tmp_path / "a.TextGrid"), False).maxTimestamp == 13.0


def test_an_unknown_speaker_is_not_named(tmp_path: Path) -> None:
    write_eaf(timeline(said(0, 1, "so")), tmp_path / "a.eaf")
    write_textgrid(timeline(said(0, 1, "so")), tmp_path / "a.TextGrid")
    names = ["transcript", "words", "emotions", "happy", "sad"]
    assert list(read_elan(tmp_path / "a.eaf")) == list(read_praat(tmp_path / "a.TextGrid")) == names
    assert "PARTICIPANT" not in (tmp_path / "a.eaf").read_text()


def test_subtitles(tmp_path: Path) -> None:
    write_webvtt(DIALOG, tmp_path / "a.vtt")
    assert (tmp_path / "a.vtt").read_text() == (
        "WEBVTT\n\n"
        "00:00:00.500 --> 00:00:02.000\n<v Ann>So glad\n<c.labels>[happy 0.83]</c></v>\n\n"
        "00:00:01.500 --> 00:00:03.000\n<v Ben>Me too, though\n<c.labels>[sad 0.60]</c></v>\n\n"
        "00:00:05.000 --> 00:00:07.250\n<v Ann>Well\n<c.labels>[happy 0.90, sad 0.80]</c></v>\n"
    )
    cues = list(webvtt.read(tmp_path / "a.vtt"))
    assert [cue.voice for cue in cues] == ["Ann", "Ben", "Ann"]
    assert cues[1].text == "Me too, though\n[sad 0.60]"
    late = timeline(said(7384.0, 7385.0009, "so"))
    write_webvtt(late, tmp_path / "b.vtt")
    assert "02:03:04.000 --> 02:03:05.001\n" in (tmp_path / "b.vtt").read_text()


@pytest.mark.parametrize("suffix", ANNOTATION_WRITERS)
def test_carat_reads_its_files_as_transcripts(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    ANNOTATION_WRITERS[suffix](DIALOG, file)
    transcript = read_transcript(file)
    assert [(u.text, u.start, u.end, u.speaker) for u in transcript.utterances] == [
        ("So glad", 0.5, 2.0, "Ann"),
        ("Me too, though", 1.5, 3.0, "Ben"),
        ("Well", 5.0, 7.25, "Ann"),
    ]
    assert [(w.text, w.speaker) for w in transcript.words if w.speaker == "Ben"] == [
        ("Me", "Ben"),
        ("too,", "Ben"),
        ("though", "Ben"),
    ]


@pytest.mark.parametrize("speaker", ["", "Ann", HOSTILE], ids=["unknown", "Ann", "hostile"])
def test_any_text_and_any_name(tmp_path: Path, speaker: str) -> None:
    scores = {
        HOSTILE: 0.7,
        "words": 0.6,
        "transcript": 0.1,
        "Words": 0.2,
        "": 0.3,
        "x@Ann": 0.1,
        "Ann - x": 0.4,
    }
    scored = timeline(said(0, 1, HOSTILE, speaker, scores), said(1, 2, "", speaker, scores))
    name = {"": "", "Ann": "Ann", HOSTILE: CLEANED}[speaker]

    write_eaf(scored, tmp_path / "a.eaf")
    check_structure(tmp_path / "a.eaf")
    elan = read_elan(tmp_path / "a.eaf")
    suffix = f"@{name}" if name else ""
    assert elan[f"transcript{suffix}"] == [(0, 1000, CLEANED), (1000, 2000, "")]
    assert elan[f"emotions{suffix}"][0] == (0, 1000, f"{CLEANED}, words")
    assert elan[f"{CLEANED}{suffix}"][0] == (0, 1000, "0.70")
    assert elan[f"words 2{suffix}"][0] == (0, 1000, "0.60")
    assert elan[f"Words 3{suffix}"][0] == (0, 1000, "0.20")
    assert elan[f"unnamed{suffix}"][0] == (0, 1000, "0.30")
    assert len(elan) == 3 + len(scores)

    write_textgrid(scored, tmp_path / "a.TextGrid")
    grid = read_praat(tmp_path / "a.TextGrid")
    assert len(grid) == len(elan)
    prefix = f"{name} - ".replace(" [", "  [") if name else ""
    assert grid[f"{prefix}transcript"] == [(0, 1000, CLEANED.replace(" [", "  [").strip())]
    assert grid[f"{prefix}words 2"][0] == (0, 1000, "0.60")

    write_webvtt(scored, tmp_path / "a.vtt")
    first, second = webvtt.read(tmp_path / "a.vtt")
    assert html.unescape(first.text) == f"{CLEANED}\n[{CLEANED} 0.70, words 0.60]"
    assert html.unescape(second.text) == f"[{CLEANED} 0.70, words 0.60]"
    assert html.unescape(first.voice or "") == name


def test_segments_of_one_speaker_that_overlap_are_on_further_tiers(tmp_path: Path) -> None:
    scored = timeline(said(0, 4, "one"), said(1, 2, "two"), said(2, 3, "three"), said(4, 5, "four"))
    write_eaf(scored, tmp_path / "a.eaf")
    write_textgrid(scored, tmp_path / "a.TextGrid")
    check_structure(tmp_path / "a.eaf")
    for tiers in (read_elan(tmp_path / "a.eaf"), read_praat(tmp_path / "a.TextGrid")):
        assert tiers["transcript"] == [(0, 4000, "one"), (4000, 5000, "four")]
        assert tiers["transcript 2"] == [(1000, 2000, "two"), (2000, 3000, "three")]
        assert tiers["happy 2"] == [(1000, 2000, "0.83"), (2000, 3000, "0.83")]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([(1.0, 1.0)], [(1000, 1001)]),
        ([(2.0, 1.0)], [(2000, 2001)]),
        ([(-1.0, 0.0)], [(0, 1)]),
        ([(1.00049, 2.00051)], [(1000, 2001)]),
        ([(0.0, 1.0004), (1.0004, 2.0)], [(0, 1000), (1000, 2000)]),
        ([(1.0, 1.0002), (1.0002, 2.0)], [(1000, 1001), (1001, 2000)]),
        ([(12.9999, 13.0)], [(13000, 13001)]),
        ([(12.0, 99.0)], [(12000, 99000)]),
    ],
)
def test_times_are_whole_milliseconds_and_never_empty(
    tmp_path: Path, times: list[tuple[float, float]], expected: list[tuple[int, int]]
) -> None:
    scored = timeline(*(said(start, end, "so it goes") for start, end in times))
    write_eaf(scored, tmp_path / "a.eaf")
    write_textgrid(scored, tmp_path / "a.TextGrid")
    write_webvtt(scored, tmp_path / "a.vtt")
    check_structure(tmp_path / "a.eaf")
    for tiers in (read_elan(tmp_path / "a.eaf"), read_praat(tmp_path / "a.TextGrid")):
        assert [(start, end) for start, end, _ in tiers["transcript"]] == expected
    cues = [
        (c.start_time.in_milliseconds(), c.end_time.in_milliseconds())
        for c in webvtt.read(tmp_path / "a.vtt")
    ]
    assert all(start < end for start, end in cues)
    assert cues[0] == expected[0]


def test_words_are_kept_inside_of_their_segment_and_apart(tmp_path: Path) -> None:
    words = [
        Word("a", 0.5, 1.2),
        Word("b", 1.1, 1.3),
        Word("c", 1.9, 1.9),
        Word("d", 1.9, 2.7),
        Word("\n", 2, 2),
    ]
    write_eaf(timeline(said(1, 2, "a b c d", words=words)), tmp_path / "a.eaf")
    check_structure(tmp_path / "a.eaf")
    assert read_elan(tmp_path / "a.eaf")["words"] == [
        (1000, 1200, "a"),
        (1200, 1300, "b"),
        (1900, 1901, "c"),
        (1901, 2000, "d"),
    ]
    short = timeline(said(1, 1.002, "a b c", words=[Word(x, 1.0, 1.002) for x in "abc"]))
    write_eaf(short, tmp_path / "b.eaf")
    assert read_elan(tmp_path / "b.eaf")["words"] == [(1000, 1002, "a b c")]


@pytest.mark.parametrize("suffix", ANNOTATION_WRITERS)
def test_a_clip_without_segments_or_words(tmp_path: Path, suffix: str) -> None:
    silent = timeline(said(0, 5, ""), said(5, 10, ""))
    ANNOTATION_WRITERS[suffix](silent, tmp_path / f"a{suffix}")
    ANNOTATION_WRITERS[suffix](timeline(), tmp_path / f"b{suffix}")
    if suffix == ".vtt":
        assert [cue.text for cue in webvtt.read(tmp_path / "a.vtt")] == ["[happy 0.83]"] * 2
        assert list(webvtt.read(tmp_path / "b.vtt")) == []
    elif suffix == ".eaf":
        check_structure(tmp_path / "a.eaf")
        check_structure(tmp_path / "b.eaf")
        assert list(read_elan(tmp_path / "a.eaf")) == ["transcript", "emotions", "happy", "sad"]
    else:
        assert read_praat(tmp_path / "a.TextGrid")["emotions"] == [(0, 5000, "happy"), (5000, 10000, "happy")]


def test_no_label_is_said_in_subtitles(tmp_path: Path) -> None:
    write_webvtt(timeline(said(0, 1, "so", "", {"happy": 0.1})), tmp_path / "a.vtt")
    assert "\nso\n<c.labels>[no label]</c>\n" in (tmp_path / "a.vtt").read_text()


@pytest.mark.parametrize(
    ("media", "annotations", "url"),
    [
        ("clip.mp4", "a.eaf", "./clip.mp4"),
        ("clips/my clip & more.mp4", "out/a.eaf", "../clips/my clip & more.mp4"),
        ("clip.mp4", "out/deep/a.eaf", "../../clip.mp4"),
        ("/elsewhere/of/ann/clip.mp4", "a.eaf", "./clip.mp4"),
    ],
)
def test_the_media_file_is_linked_without_an_absolute_path(
    tmp_path: Path, media: str, annotations: str, url: str
) -> None:
    file = tmp_path / annotations
    write_eaf(timeline(said(0, 1, "so"), file=tmp_path / media), file)
    (descriptor,) = pympi.Elan.Eaf(str(file)).media_descriptors
    assert descriptor["MEDIA_URL"] == descriptor["RELATIVE_MEDIA_URL"] == url
    assert descriptor["MIME_TYPE"] == "video/mp4"
    assert str(tmp_path) not in file.read_text()
    assert "/elsewhere" not in file.read_text()


@pytest.mark.parametrize("suffix", ANNOTATION_WRITERS)
def test_no_media(tmp_path: Path, suffix: str) -> None:
    ANNOTATION_WRITERS[suffix](DIALOG, tmp_path / f"a{suffix}", media=False)
    assert "clip.mp4" not in (tmp_path / f"a{suffix}").read_text()
    assert "MEDIA_DESCRIPTOR" not in (tmp_path / f"a{suffix}").read_text()


def test_the_type_of_a_file_with_an_unknown_ending(tmp_path: Path) -> None:
    scored = timeline(said(0, 1, "so"), file=tmp_path / "clip.unknown")
    write_eaf(scored, tmp_path / "a.eaf")
    assert 'MIME_TYPE="video/*"' in (tmp_path / "a.eaf").read_text()
    info = scored.clip.info.model_copy(update={"video": None})
    write_eaf(replace(scored, clip=replace(scored.clip, info=info)), tmp_path / "a.eaf")
    assert 'MIME_TYPE="audio/*"' in (tmp_path / "a.eaf").read_text()


@pytest.mark.parametrize("suffix", ANNOTATION_WRITERS)
def test_a_file_is_replaced_as_a_whole(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "new" / f"a{suffix}"
    ANNOTATION_WRITERS[suffix](DIALOG, file)
    before = file.read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        ANNOTATION_WRITERS[suffix](timeline(said(0, 1, "other")), file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


TIMES = st.floats(-1, 12) | st.sampled_from([0.0, 1.0, 1.0004, 1.0005, 2.0])
TEXTS = st.text(max_size=8) | st.sampled_from(["", "so it goes", HOSTILE])
SEGMENTS = st.lists(
    st.builds(
        lambda start, length, text, speaker, words: said(
            start, start + length, text, speaker, words=[Word(t, a, b) for t, a, b in words]
        ),
        TIMES,
        st.floats(-0.1, 3) | st.sampled_from([0.0, 0.0001]),
        TEXTS,
        st.sampled_from(["", "Ann", "ann", "Ann\n"]) | TEXTS,
        st.lists(st.tuples(TEXTS, TIMES, TIMES), max_size=4),
    ),
    max_size=6,
)


@FUZZ
@given(segments=SEGMENTS)
def test_any_timeline(segments: list[ScoredSegment], tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("any")
    scored = timeline(*segments)
    write_eaf(scored, folder / "a.eaf")
    write_textgrid(scored, folder / "a.TextGrid")
    write_webvtt(scored, folder / "a.vtt")
    check_structure(folder / "a.eaf")
    elan, grid = read_elan(folder / "a.eaf"), read_praat(folder / "a.TextGrid")
    assert len(elan) == len(grid)
    for tiers, written in zip(elan.values(), grid.values(), strict=True):
        assert [x[:2] for x in tiers if x[2].strip()] == [x[:2] for x in written]
    assert len(list(webvtt.read(folder / "a.vtt"))) == len(segments)
