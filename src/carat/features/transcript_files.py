"""Transcripts that people bring: text, SubRip (.srt), WebVTT (.vtt) and Praat's TextGrid (extra `clip`)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carat.features.speech import Segment
from carat.features.words import Word, spread, spread_over
from carat.utils.encoding import detect, detect_by_mark
from carat.utils.errors import DataError, shorten
from carat.utils.reading import read_bytes

MAX_BYTES = 32 << 20
MAX_SECONDS = 100 * 3600.0
WORD_TIERS = ("words", "word", "orthography", "ort", "kan", "ort-mau")
"""Names of tiers with words, as forced aligners write them."""
INLINE_TIME = re.compile(r"<((?:\d+:)?\d{2}:\d{2}\.\d{3})>")
TAG = re.compile(r"</?[^<>]*>")
NOT_SPEECH = re.compile(r"\{[^{}]*\}|♪|♫")


@dataclass(frozen=True)
class Utterance:
    """What is said in a stretch of time.

    Args:
        text: what is said; may have several lines.
        start: seconds from the start of the file; None if the transcript has no times.
        end: likewise.
        speaker: who says it; empty if unknown.
    """

    text: str
    start: float | None = None
    end: float | None = None
    speaker: str = ""


@dataclass(frozen=True)
class Transcript:
    """A transcript from a file.

    Args:
        utterances: its parts, sorted by time.
        words: words with times, if the file has times; those of single words are kept where it has them.
    """

    utterances: Sequence[Utterance]
    words: Sequence[Word]

    @property
    def has_times(self) -> bool:
        """Whether the file has times."""
        return all(utterance.start is not None for utterance in self.utterances)

    def timed_words(self, segments: Sequence[Segment], duration: float) -> list[Word]:
        """Words with times; those of a text without times are spread over what is spoken.

        Args:
            segments: speech segments of the media file.
            duration: its length in seconds, used if there are no segments.
        """
        if self.has_times:
            return list(self.words)
        spans = [(segment.start, segment.end) for segment in segments] or [(0.0, duration)]
        return spread_over(" ".join(utterance.text for utterance in self.utterances), spans)


def read_transcript(file: str | os.PathLike[str]) -> Transcript:
    """Read a transcript; the suffix of the file says what it is.

    Args:
        file: `.txt`, `.srt`, `.vtt` or `.TextGrid` file.

    Raises:
        DataError: unknown suffix, no text in it, times that are invalid, or the extra is not installed.
    """
    path = Path(file)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path}: unknown kind of transcript '{suffix}', expected {', '.join(READERS)}")
    text = _decode(path)
    if not text.strip():
        raise DataError(f"{path}: has no text")
    transcript = READERS[suffix](text, path)
    if not any(utterance.text.strip() for utterance in transcript.utterances):
        raise DataError(f"{path}: has no text")
    return transcript


def text_transcript(text: str) -> Transcript:
    """A transcript of text without times, such as a cell of a table.

    >>> text_transcript("so it goes").has_times
    False
    """
    return Transcript([Utterance(" ".join(text.split()))], [])


def _decode(path: Path) -> str:
    """Text of a file in any common encoding; UTF-8 first."""
    content = read_bytes(path, limit=MAX_BYTES)
    for encoding in (detect_by_mark(content[:4096]) or "utf-8", detect(content) or "utf-8"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise DataError(f"{path}: is no text")


def _read_text(text: str, path: Path) -> Transcript:
    return text_transcript(text)


def _read_cues(text: str, path: Path) -> Transcript:
    """Cues of SubRip or WebVTT; WebVTT may have times of single words."""
    try:
        import webvtt
    except ImportError as error:
        raise DataError(_extra("subtitles")) from error
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\ufeff\n ")
    try:
        cues = list(webvtt.from_string(text)) if path.suffix.lower() == ".vtt" else _subrip(webvtt, text)
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError, ValueError) as error:
        reason = shorten(str(error) or "damaged", 120)
        raise DataError(f"{path}: cannot be read as {path.suffix[1:]} ({reason})") from error
    if not cues:
        raise DataError(f"{path}: has no cues; a cue has a line such as 00:00:01,000 --> 00:00:02,500")
    utterances, words = [], []
    for number, cue in enumerate(cues, 1):
        start, end = _seconds(cue.start), _seconds(cue.end)
        _check_times(start, end, f"{path}: cue {number}")
        spoken = _plain(cue.raw_text)
        if spoken:
            utterances.append(Utterance(spoken, start, end))
            words += _cue_words(cue.raw_text, start, end)
    return _sorted(utterances, words)


def _subrip(webvtt: Any, text: str) -> list[Any]:
    """SubRip differs from WebVTT in its decimal comma and its missing first line."""
    stamp = re.compile(r"^\s*(\d+:\d+:\d+)[,.](\d{1,3})\s*-->\s*(\d+:\d+:\d+)[,.](\d{1,3}).*$", re.MULTILINE)
    lines = stamp.sub(lambda m: f"{_pad(m[1], m[2])} --> {_pad(m[3], m[4])}", text)
    return list(webvtt.from_string(f"WEBVTT\n\n{lines}"))


def _pad(clock: str, fraction: str) -> str:
    hours, minutes, seconds = clock.split(":")
    return f"{int(hours):02d}:{int(minutes):02d}:{int(seconds):02d}.{fraction.ljust(3, '0')}"


def _seconds(stamp: str) -> float:
    """
    >>> _seconds("00:01:02.500"), _seconds("01:02.500")
    (62.5, 62.5)
    """
    parts = [float(part) for part in stamp.split(":")]
    return float(sum(part * 60**i for i, part in enumerate(reversed(parts))))


def _plain(raw: str) -> str:
    """Spoken text of a cue, without tags, notes on style, and the sign of music."""
    return " ".join(NOT_SPEECH.sub(" ", TAG.sub("", raw)).split())


def _cue_words(raw: str, start: float, end: float) -> list[Word]:
    """Words of a cue, with the times inside it if there are any."""
    pieces = INLINE_TIME.split(raw)
    if len(pieces) == 1:
        return spread(_plain(raw), start, end)
    starts = [start, *(_seconds(stamp) for stamp in pieces[1::2])]
    words = []
    for text, first, last in zip(pieces[::2], starts, [*starts[1:], end], strict=True):
        spoken = spread(_plain(text), first, max(first, last))
        single = len(spoken) == 1
        words += [Word(word.text, word.start, word.end, measured=single) for word in spoken]
    return words


def _read_textgrid(text: str, path: Path) -> Transcript:
    """The tier with words, otherwise the first one with text."""
    try:
        from praatio.utilities import errors, textgrid_io
    except ImportError as error:
        raise DataError(_extra("TextGrid files")) from error
    try:
        tiers = textgrid_io.parseTextgridStr(text, includeEmptyIntervals=False)["tiers"]
        intervals = {
            tier["name"]: [(float(a), float(b), str(label)) for a, b, label in tier["entries"]]
            for tier in tiers
            if tier["class"] == "IntervalTier"
        }
    except (errors.PraatioException, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as TextGrid ({shorten(str(error) or 'damaged', 120)})"
        ) from error
    filled = {name: [e for e in entries if e[2].strip()] for name, entries in intervals.items()}
    filled = {name: entries for name, entries in filled.items() if entries}
    if not filled:
        raise DataError(f"{path}: has no interval with text")
    named = [name for name in filled if name.lower().split(" - ")[-1] in WORD_TIERS]
    entries = filled[named[0] if named else next(iter(filled))]
    utterances, words = [], []
    for start, end, label in entries:
        _check_times(start, end, f"{path}: interval '{shorten(label, 30)}'")
        spoken = " ".join(label.split())
        utterances.append(Utterance(spoken, start, end))
        single = len(label.split()) == 1
        words += [
            Word(word.text, word.start, word.end, measured=single) for word in spread(spoken, start, end)
        ]
    return _sorted(utterances, words)


def _check_times(start: float, end: float, where: str) -> None:
    if not 0 <= start <= end <= MAX_SECONDS:
        raise DataError(f"{where} is from {start:g} to {end:g} s, expected a start before its end")


def _sorted(utterances: list[Utterance], words: list[Word]) -> Transcript:
    return Transcript(
        sorted(utterances, key=lambda utterance: utterance.start or 0.0),
        sorted(words, key=lambda word: (word.start, word.end)),
    )


def _extra(kind: str) -> str:
    return f"{kind} need the extra: pip install 'carat-emotion[clip]'"


READERS: dict[str, Callable[[str, Path], Transcript]] = {
    ".txt": _read_text,
    ".srt": _read_cues,
    ".vtt": _read_cues,
    ".textgrid": _read_textgrid,
}
"""Readers by suffix in lower case."""
