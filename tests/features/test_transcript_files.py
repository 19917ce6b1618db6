"""Transcripts that people bring, with the quirks of real files, and faulty ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from carat.features.speech import Segment
from carat.features.transcript_files import Transcript, read_transcript, text_transcript
from carat.utils.errors import DataError

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
    assert spoken(transcript)[1][1:] == (3600.0, 3601.0)
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
        ("a.docx", "hello", "unknown kind of transcript '.docx', expected .txt, .srt, .vtt, .textgrid"),
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
