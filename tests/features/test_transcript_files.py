"""Transcripts that people bring, with the quirks of real files, and faulty ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carat.features.speech import Segment
from carat.features.tiers import Interval, Tier, choose_tiers
from carat.features.transcript_files import Transcript, read_transcript, text_transcript
from carat.features.utterances import group_words
from carat.utils.errors import DataError
from tests.fuzzing import FUZZ

pytest.importorskip("webvtt")
pytest.importorskip("praatio")


def read(folder: Path, name: str, content: str | bytes) -> Transcript:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_transcript(file)


def spoken(transcript: Transcript) -> list[tuple[str, float | None, float | None]]:
    return [(u.text, u.start, u.end) for u in transcript.utterances]


SUBRIP = (
    "1\n00:00:01,000 --> 00:00:02,500\n<i>Hello</i> there\nyou\n\n2\n00:00:03,000 --> 00:01:04,000\nBye\n"
)
CUES = [("Hello there you", 1.0, 2.5), ("Bye", 3.0, 64.0)]


@pytest.mark.parametrize(
    "content",
    [
        SUBRIP,
        SUBRIP.replace("\n", "\r\n"),
        "\ufeff" + SUBRIP,
        SUBRIP.encode("utf-16"),
        SUBRIP.replace("1\n00", "00").replace("2\n00", "00"),  # without numbers
        SUBRIP.replace(",", "."),
        SUBRIP.replace("Bye", "{\\an8}♪ Bye ♪"),
        SUBRIP.replace("02,500", "02,5  X1:40 X2:600"),
        SUBRIP + "\n3\n00:02:00,000 --> 00:02:01,000\n\n",
    ],
)
def test_subrip(tmp_path: Path, content: str | bytes) -> None:
    assert spoken(read(tmp_path, "a.srt", content)) == CUES


def test_words_of_a_cue_are_interpolated(tmp_path: Path) -> None:
    words = read(tmp_path, "a.srt", SUBRIP).words
    assert [word.text for word in words] == ["Hello", "there", "you", "Bye"]
    assert (words[0].start, words[2].end) == (1.0, 2.5)
    assert not any(word.measured for word in words)


def test_subrip_in_an_old_encoding(tmp_path: Path) -> None:
    text = SUBRIP.replace("Bye", "Où êtes-vous ? C’est très bien, déjà")
    assert read(tmp_path, "a.srt", text.encode("cp1252")).utterances[1].text == (
        "Où êtes-vous ? C’est très bien, déjà"
    )


def test_a_spoken_number_is_text(tmp_path: Path) -> None:
    content = SUBRIP.replace("Bye", "42")
    assert read(tmp_path, "a.srt", content).utterances[1].text == "42"


def test_webvtt_with_times_of_words(tmp_path: Path) -> None:
    content = (
        "WEBVTT - title\n\nNOTE a comment\n\nSTYLE\n::cue { color: red }\n\n"
        "intro\n00:01.000 --> 00:02.500 align:start position:0%\n<v Bob>Well <00:00:01.500><c>hello</c> "
        "<00:00:02.000><c>big world</c>\n\n01:00:00.000 --> 01:00:01.000\nBye &amp; thanks\n"
    )
    transcript = read(tmp_path, "a.vtt", content)
    assert spoken(transcript)[0] == ("Well hello big world", 1.0, 2.5)
    assert spoken(transcript)[1] == ("Bye & thanks", 3600.0, 3601.0)
    assert [u.speaker for u in transcript.utterances] == ["Bob", ""]
    first = [(w.text, w.start, w.measured) for w in transcript.words[:3]]
    assert first == [("Well", 1.0, True), ("hello", 1.5, True), ("big", 2.0, False)]


GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2.5
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "phones"
        xmin = 0
        xmax = 2.5
        intervals: size = 1
        intervals [1]:
            xmin = 0
            xmax = 2.5
            text = "HH"
    item [2]:
        class = "IntervalTier"
        name = "words"
        xmin = 0
        xmax = 2.5
        intervals: size = 3
        intervals [1]:
            xmin = 0
            xmax = 1
            text = "hello"
        intervals [2]:
            xmin = 1
            xmax = 1.2
            text = ""
        intervals [3]:
            xmin = 1.2
            xmax = 2.5
            text = "there"
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_textgrid_with_words(tmp_path: Path, encoding: str) -> None:
    transcript = read(tmp_path, "a.TextGrid", GRID.encode(encoding))
    assert [(w.text, w.start, w.end, w.measured) for w in transcript.words] == [
        ("hello", 0.0, 1.0, True),
        ("there", 1.2, 2.5, True),
    ]


def test_textgrid_with_sentences(tmp_path: Path) -> None:
    content = GRID.replace('"words"', '"Speaker A"').replace('"HH"', '""').replace('"hello"', '"oh hello"')
    transcript = read(tmp_path, "a.TextGrid", content)
    assert spoken(transcript) == [("oh hello", 0.0, 1.0), ("there", 1.2, 2.5)]
    assert [word.measured for word in transcript.words] == [False, False, True]


def turns(transcript: Transcript) -> list[tuple[str, str, float | None, float | None]]:
    return [(u.speaker, u.text, u.start, u.end) for u in transcript.utterances]


def test_speakers_of_webvtt(tmp_path: Path) -> None:
    content = (
        "WEBVTT\n\n00:01.000 --> 00:03.000\n<v.loud.first Ann  B&amp;C>So?</v>\n"
        "<v Ben>Well,\nyes</v> (laughs)\n\n"
        "00:02.000 --> 00:04.000\n<v Ann>See <00:00:03.000>you</v>\n\n00:05.000 --> 00:06.000\n<v>Hm\n"
    )
    transcript = read(tmp_path, "a.vtt", content)
    assert turns(transcript) == [
        ("Ann B&C", "So?", 1.0, 1.316),
        ("Ben", "Well, yes", 1.316, 2.263),
        ("Ann", "See you", 2.0, 4.0),
        ("", "(laughs)", 2.263, 3.0),
        ("", "Hm", 5.0, 6.0),
    ]
    assert [(w.text, w.start, w.end, w.measured) for w in transcript.words if w.speaker == "Ann"] == [
        ("See", 2.0, 3.0, True),
        ("you", 3.0, 4.0, True),
    ]


def test_times_inside_a_cue_stay_inside(tmp_path: Path) -> None:
    content = "WEBVTT\n\n00:01.000 --> 00:02.000\nsee <00:00:09.000>you <00:00:00.500>then\n"
    words = read(tmp_path, "a.vtt", content).words
    assert all(1.0 <= word.start <= word.end <= 2.0 for word in words)


def grid_of(*tiers: tuple[str, Sequence[tuple[float, float, str]]]) -> str:
    lines = [
        'File type = "ooTextFile"',
        'Object class = "TextGrid"',
        "",
        "0",
        "9",
        "<exists>",
        str(len(tiers)),
    ]
    for name, intervals in tiers:
        lines += ['"IntervalTier"', f'"{name}"', "0", "9", str(len(intervals))]
        lines += [f'{start}\n{end}\n"{text}"' for start, end, text in intervals]
    return "\n".join(lines) + "\n"


def test_textgrid_of_forced_alignment_with_speakers(tmp_path: Path) -> None:
    content = grid_of(
        ("Ann - words", [(0, 1, "hello"), (1, 1.5, "there"), (1.5, 1.6, "<eps>"), (4, 5, "bye")]),
        ("Ann - phones", [(0, 0.2, "HH"), (0.2, 1, "AH")]),
        ("Ben - words", [(1.25, 2, "hi")]),
        ("Ben - phones", [(1.25, 2, "HH")]),
    )
    transcript = read(tmp_path, "a.TextGrid", content)
    assert turns(transcript) == [
        ("Ann", "hello there", 0.0, 1.5),
        ("Ben", "hi", 1.25, 2.0),
        ("Ann", "bye", 4.0, 5.0),
    ]
    assert [(w.text, w.speaker, w.measured) for w in transcript.words] == [
        ("hello", "Ann", True),
        ("there", "Ann", True),
        ("hi", "Ben", True),
        ("bye", "Ann", True),
    ]


def test_textgrid_with_a_tier_for_each_person(tmp_path: Path) -> None:
    content = grid_of(
        ("Ann", [(0, 2, "oh hello"), (5, 6, "bye")]),
        ("notes", [(0, 9, "recorded outside")]),
        ("Ben", [(1.5, 3, "hi")]),
        ("Translation", [(0, 2, "oh bonjour")]),
    )
    assert turns(read(tmp_path, "a.TextGrid", content)) == [
        ("Ann", "oh hello", 0.0, 2.0),
        ("Ben", "hi", 1.5, 3.0),
        ("Ann", "bye", 5.0, 6.0),
    ]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["phones", "words"], ["words"]),
        (["sentences", "KAN", "ORT", "MAU"], ["KAN"]),
        (["words", "words_corrected"], ["words"]),
        (["words", "ort"], ["words"]),
        (["Ann - words", "Ann - phones"], ["Ann - words"]),
        (["Ann - words", "Ann - utterances", "Ben - utterances"], ["Ann - words", "Ben - utterances"]),
        (["transcript@Ann", "words@Ann", "happy@Ann", "words@Ben"], ["words@Ann", "words@Ben"]),
        (["transcript – Ann", "transcript – Ben"], ["transcript – Ann", "transcript – Ben"]),
        (["Ann_words", "Ben_words", "phones"], ["Ann_words", "Ben_words"]),
        (["A_Transcription", "A_Notes", "B_Transcription"], ["A_Transcription", "B_Transcription"]),
        (["K-Spch", "W-Spch", "W-Words", "W-IPA"], ["W-Words", "K-Spch"]),
        (["ORT-MAU", "KAN-MAU", "MAU"], ["ORT-MAU"]),
        (["speaker 1", "speaker 2", "Comments"], ["speaker 1", "speaker 2"]),
        (["Speaker_A", "Speaker_B"], ["Speaker_A", "Speaker_B"]),
        (["SPK_01", "SPK_02"], ["SPK_01", "SPK_02"]),
        (["phones", "Mary", "John"], ["Mary", "John"]),
        (["李雷", "韩梅梅"], ["李雷", "韩梅梅"]),
        (["what", "who"], ["what"]),
        (["Tier 1", "Tier 2"], ["Tier 1"]),
        (["transcript", "emotions", "Happy", "Sad"], ["transcript"]),
        (["phones", "notes"], ["phones"]),
        (["", "words"], ["words"]),
    ],
)
def test_the_tiers_with_what_is_said(names: list[str], chosen: list[str]) -> None:
    tiers = [Tier(name, [Interval(i, i + 1, "so")]) for i, name in enumerate(names)]
    assert [tier.name for tier in choose_tiers(tiers)] == chosen


def test_a_tier_with_the_times_of_another_one_is_no_speaker() -> None:
    times = [(0.0, 1.0), (2.0, 3.0), (3.0, 5.0)]
    tiers = [Tier(name, [Interval(*span, name) for span in times]) for name in ("Hindi", "English")]
    assert [tier.name for tier in choose_tiers(tiers)] == ["Hindi"]


def elan(
    *tiers: str, slots: Sequence[int | str | None] = (0, 1000, 1500, 2500, 4000), header: str = ""
) -> str:
    values = ["" if value is None else f' TIME_VALUE="{value}"' for value in slots]
    order = "".join(f'<TIME_SLOT TIME_SLOT_ID="ts{i}"{value}/>' for i, value in enumerate(values))
    header = header or '<HEADER MEDIA_FILE="" TIME_UNITS="milliseconds"/>'
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ANNOTATION_DOCUMENT AUTHOR="" DATE="2024-01-01T00:00:00+00:00" VERSION="3.0">'
        f"{header}<TIME_ORDER>{order}</TIME_ORDER>{''.join(tiers)}</ANNOTATION_DOCUMENT>"
    )


def elan_tier(name: str, *annotations: tuple[int, int, str], participant: str = "") -> str:
    return (
        f"<TIER TIER_ID={quoteattr(name)} PARTICIPANT={quoteattr(participant)}>"
        + "".join(
            f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="{name}{i}" TIME_SLOT_REF1="ts{a}" '
            f'TIME_SLOT_REF2="ts{b}"><ANNOTATION_VALUE>{text}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>'
            for i, (a, b, text) in enumerate(annotations)
        )
        + "</TIER>"
    )


TALK = elan_tier("talk", (0, 1, "Oh &amp;\n hello"), (3, 4, "bye"), participant="Ann")
REPLY = elan_tier("other talk", (1, 3, "hi"), participant="Ben")
TRANSLATION = (
    '<TIER TIER_ID="Translation" PARENT_REF="talk" PARTICIPANT="Ann"><ANNOTATION>'
    '<REF_ANNOTATION ANNOTATION_ID="r1" ANNOTATION_REF="talk0"><ANNOTATION_VALUE>bonjour</ANNOTATION_VALUE>'
    "</REF_ANNOTATION></ANNOTATION></TIER>"
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_elan_with_participants(tmp_path: Path, encoding: str) -> None:
    content = elan(TRANSLATION, TALK, REPLY).replace("UTF-8", encoding)
    transcript = read(tmp_path, "a.eaf", content.encode(encoding))
    assert turns(transcript) == [
        ("Ann", "Oh & hello", 0.0, 1.0),
        ("Ben", "hi", 1.0, 2.5),
        ("Ann", "bye", 2.5, 4.0),
    ]
    assert [(w.text, w.speaker, w.measured) for w in transcript.words] == [
        ("Oh", "Ann", False),
        ("&", "Ann", False),
        ("hello", "Ann", False),
        ("hi", "Ben", True),
        ("bye", "Ann", True),
    ]


def test_elan_speakers_with_tiers_of_different_kinds(tmp_path: Path) -> None:
    words = elan_tier("words", (0, 1, "Oh"), (1, 2, "hello"), participant="Ann")
    notes = elan_tier("notes", (0, 4, "noisy"), participant="Cleo")
    transcript = read(tmp_path, "a.eaf", elan(notes, TALK, words, REPLY))
    assert turns(transcript) == [("Ann", "Oh hello", 0.0, 1.5), ("Ben", "hi", 1.0, 2.5)]


def test_elan_prefers_words(tmp_path: Path) -> None:
    content = elan(
        elan_tier("default", (0, 2, "Oh hello")), elan_tier("words", (0, 1, "Oh"), (1, 2, "hello"))
    )
    transcript = read(tmp_path, "a.eaf", content)
    assert [(w.text, w.start, w.end) for w in transcript.words] == [("Oh", 0.0, 1.0), ("hello", 1.0, 1.5)]
    assert turns(transcript) == [("", "Oh hello", 0.0, 1.5)]


def test_elan_annotations_that_divide_another_one_are_interpolated(tmp_path: Path) -> None:
    words = elan_tier("words", (0, 1, "a"), (1, 2, "b"), (2, 3, "c"))
    transcript = read(tmp_path, "a.eaf", elan(words, slots=[1000, None, None, 4000]))
    assert [(w.text, w.start, w.end, w.measured) for w in transcript.words] == [
        ("a", 1.0, 2.0, False),
        ("b", 2.0, 3.0, False),
        ("c", 3.0, 4.0, False),
    ]


def test_elan_times_begin_where_the_media_file_does(tmp_path: Path) -> None:
    header = '<HEADER><MEDIA_DESCRIPTOR MEDIA_URL="a.mp4" MIME_TYPE="video/mp4" TIME_ORIGIN="2500"/></HEADER>'
    assert turns(read(tmp_path, "a.eaf", elan(REPLY, header=header))) == [("Ben", "hi", 3.5, 5.0)]


BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefghi", "bcdefghij", strict=True))
    + "]>"
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (elan(TALK)[:500], r"cannot be read as eaf \(unclosed token"),
        (elan(TALK)[:-10], r"cannot be read as eaf \("),
        ("hello", r"cannot be read as eaf \(syntax error"),
        (
            elan(TALK).replace("?>\n", "?>" + BOMB).replace("hello", "&j;"),
            r"document type declaration \(<!DOCTYPE\)",
        ),
        (
            elan(TALK).replace("?>\n", '?><!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
            "document type declaration",
        ),
        (elan(TALK).replace("hello", "&nothing;"), r"cannot be read as eaf \(undefined entity"),
        ("<TIER/>", "is no ELAN file: <TIER> instead of <ANNOTATION_DOCUMENT>"),
        ("<!DOCTYPE html><html></html>", "is a web page"),
        (elan(), "has no annotation with text that is aligned with time"),
        (elan(TRANSLATION), "has no annotation with text that is aligned with time"),
        (elan(elan_tier("talk", (0, 1, " "))), "has no annotation with text"),
        (elan(TALK, slots=[0, 1]), "tier 'talk' refers to time slot 'ts3', which does not exist"),
        (
            elan(TALK).replace(' TIME_SLOT_REF2="ts1"', ""),
            "tier 'talk' refers to time slot '', which does not exist",
        ),
        (
            elan(REPLY, slots=[0, None, 1, 2]),
            "tier 'other talk' has annotations without times, and none around",
        ),
        (elan(REPLY, slots=[0, -5, 1, 2]), "time slot 'ts1' is -0.005 s, expected 0 to 360000 s"),
        (
            elan(REPLY, slots=[0, 1, 1, 1000000000000]),
            "time slot 'ts3' is 1000000000 s, expected 0 to 360000 s",
        ),
        (
            elan(REPLY, slots=[0, "9" * 5000]),
            "time slot 'ts1' is '9999+…9+', expected a number of milliseconds",
        ),
        (elan(REPLY, slots=[0, "1e3"]), "time slot 'ts1' is '1e3', expected a number of milliseconds"),
        (elan(REPLY, slots=[0, "nan"]), "time slot 'ts1' is 'nan', expected a number of milliseconds"),
        (
            elan(REPLY, slots=[0, 3000, 1, 2500]),
            "annotation 'hi' is from 3 to 2.5 s, expected a start before its end",
        ),
        (
            elan(REPLY, header='<HEADER TIME_UNITS="PAL-frames"/>'),
            "has times in PAL-frames, expected milliseconds",
        ),
        ("<ANNOTATION_DOCUMENT>" + "<a/>" * 2_000_001, "has more than 2,000,000 tags"),
        ("<a>" * 100_000, r"cannot be read as eaf \(no element found"),
        ("<a>" * 100_000 + "</a>" * 100_000, "is no ELAN file: <a> instead"),
        (b"<A>" + bytes(100), "is no text"),
        (b"", "has no text"),
    ],
)
def test_faulty_elan_files(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, "a.eaf", content)
    assert str(caught.value).startswith(str(tmp_path / "a.eaf"))
    assert len(str(caught.value).removeprefix(str(tmp_path))) < 200


def test_a_huge_elan_file(tmp_path: Path) -> None:
    with (tmp_path / "a.eaf").open("wb") as file:
        file.truncate(33 << 20)
    with pytest.raises(DataError, match=r"a\.eaf: is larger than 32 MB"):
        read_transcript(tmp_path / "a.eaf")


@pytest.mark.parametrize("cue", ["<v" + " " * 100_000, "<v ." * 50_000, "." * 100_000 + "a! b"])
def test_cues_that_would_be_slow_to_search(tmp_path: Path, cue: str) -> None:
    transcript = read(tmp_path, "a.vtt", f"WEBVTT\n\n00:01.000 --> 00:02.000\nso {cue}\n")
    group_words(transcript.words)
    assert transcript.words[0].text == "so"


def test_a_transcript_that_was_not_downloaded(tmp_path: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        read(tmp_path, "a.txt", pointer)


def test_text_without_times_goes_over_the_speech(tmp_path: Path) -> None:
    transcript = read(tmp_path, "a.txt", "Hello there,\n\nhow are you?\n")
    assert not transcript.has_times
    words = transcript.timed_words([Segment(2.0, 3.0)], 10.0)
    assert " ".join(word.text for word in words) == "Hello there, how are you?"
    assert (words[0].start, words[-1].end) == (2.0, 3.0)
    assert text_transcript("a  b").timed_words([], 4.0)[-1].end == 4.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.srt", "", "has no text"),
        ("a.srt", "hello\n", "has no cues; a cue has a line such as"),
        ("a.srt", SUBRIP.replace("02,500", "00,500"), "cue 1 is from 1 to 0.5 s, expected a start before"),
        ("a.vtt", SUBRIP, "cannot be read as vtt"),
        ("a.vtt", "WEBVTT\n", "has no cues"),
        ("a.TextGrid", "hello", "cannot be read as TextGrid"),
        ("a.TextGrid", GRID[:400], "cannot be read as TextGrid"),
        ("a.TextGrid", GRID.replace("xmax = 1\n", "xmax = oops\n"), "cannot be read as TextGrid"),
        (
            "a.TextGrid",
            GRID.replace('"hello"', '""').replace('"there"', '""').replace('"HH"', '""'),
            "no inter",
        ),
        ("a.docx", "hello", "unknown kind of transcript '.docx', expected .txt, .srt, .vtt, .textgrid, .eaf"),
        ("a.txt", bytes(range(256)), "is no text"),
        ("a.srt", SUBRIP.replace("Hello</i> there\nyou", "</i>").replace("Bye", "♪"), "has no text"),
    ],
)
def test_faulty_transcripts(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(tmp_path, name, content)
    assert str(caught.value).startswith(str(tmp_path / name))


def test_a_missing_transcript(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.srt: no such file"):
        read_transcript(tmp_path / "a.srt")


PIECES = st.sampled_from(
    [piece.encode() for piece in (*'<>"9-&', "", "\n\n", "-->", "nan", "<v A>", "item [")]
)
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), PIECES, st.sampled_from([0, 1, 30])), max_size=4)
WHOLE = {
    "a.srt": SUBRIP,
    "a.vtt": "WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>So <00:01.500>it</v>\n",
    "a.TextGrid": GRID,
    "b.TextGrid": grid_of(("Ann - words", [(0, 1, "so")]), ("Ben", [(1, 2, "it goes")])),
    "a.eaf": elan(TALK, TRANSLATION, REPLY),
}


@FUZZ
@given(name=st.sampled_from(list(WHOLE)), changes=CHANGES)
def test_damaged_transcripts(
    name: str, changes: list[tuple[int, bytes, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(WHOLE[name].encode())
    for position, piece, removed in changes:
        start = position % (len(content) + 1)
        content[start : start + removed] = piece
    try:
        transcript = read(tmp_path_factory.mktemp("damaged"), name, bytes(content))
    except DataError:
        return
    assert all(0 <= word.start <= word.end for word in transcript.words)
    for utterance in transcript.utterances:
        assert utterance.text
        assert utterance.start is not None
        assert utterance.end is not None
        assert 0 <= utterance.start <= utterance.end
