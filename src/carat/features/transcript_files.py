"""Transcripts that people bring: text, SubRip (.srt), WebVTT (.vtt), Praat's TextGrid and ELAN's .eaf."""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from carat.features.elan import read_eaf
from carat.features.speech import Segment
from carat.features.tiers import Interval, Tier, check_times, read_tiers
from carat.features.utterances import Utterance as Utterance
from carat.features.words import Word, spread, spread_over
from carat.utils.encoding import detect, detect_by_mark
from carat.utils.errors import DataError, shorten
from carat.utils.reading import check_content, read_bytes

MAX_BYTES = 32 << 20
INLINE_TIME = re.compile(r"<((?:\d+:)?\d{2}:\d{2}\.\d{3})>")
VOICE = re.compile(r"<v(?:\.[^\s<>]*+)?(?:\s([^<>]*+))?>|(</v>)")
"""Start of a voice with its speaker, or its end."""
TAG = re.compile(r"</?[^<>]*>")
ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z]{2,8});", re.IGNORECASE)
LABELS = "labels"
"""Class of the line in WebVTT files that carat writes that is not spoken."""
NOT_SPEECH = re.compile(rf"<c\.{LABELS}>[^<>]*</c>|\{{[^{{}}]*\}}|♪|♫")


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
        file: `.txt`, `.srt`, `.vtt`, `.TextGrid` or `.eaf` file.

    Raises:
        DataError: unknown suffix, no text in it, times that are invalid, or the extra is not installed.
    """
    path = Path(file)
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise DataError(f"{path}: unknown kind of transcript '{suffix}', expected {', '.join(READERS)}")
    check_content(path)
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
    utterances: list[Utterance] = []
    words: list[Word] = []
    for number, cue in enumerate(cues, 1):
        start, end = _seconds(cue.start), _seconds(cue.end)
        check_times(start, end, f"{path}: cue {number}")
        spoken = _cue_words(NOT_SPEECH.sub(" ", cue.raw_text), start, end)
        utterances += _cue_utterances(spoken, start, end)
        words += spoken
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
    """Spoken text of a part of a cue, without tags."""
    return " ".join(ENTITY.sub(lambda match: html.unescape(match[0]), TAG.sub("", raw)).split())


def _cue_words(raw: str, start: float, end: float) -> list[Word]:
    """Words of a cue, with the times and the speakers inside it if there are any."""
    pieces = INLINE_TIME.split(raw)
    starts = [start, *(min(max(_seconds(stamp), start), end) for stamp in pieces[1::2])]
    words: list[Word] = []
    speaker = ""
    for text, first, last in zip(pieces[::2], starts, [*starts[1:], end], strict=True):
        parts = list(_voices(text, speaker))
        speaker = parts[-1][0]
        speakers = [name for name, part in parts for _ in _plain(part).split()]
        spoken = spread(" ".join(_plain(part) for _, part in parts), first, max(first, last))
        single = len(spoken) == 1 and len(pieces) > 1
        words += [replace(w, measured=single, speaker=name) for w, name in zip(spoken, speakers, strict=True)]
    return words


def _voices(raw: str, speaker: str) -> Iterator[tuple[str, str]]:
    """Parts of a cue with their speakers; the first part has the given one.

    >>> list(_voices("<v Ann>So?</v> <v.loud Ben>Yes", ""))
    [('', ''), ('Ann', 'So?'), ('', ' '), ('Ben', 'Yes')]
    """
    pieces = VOICE.split(raw)
    yield speaker, pieces[0]
    for name, _, part in zip(pieces[1::3], pieces[2::3], pieces[3::3], strict=True):
        yield _plain(name or ""), part


def _cue_utterances(words: Sequence[Word], start: float, end: float) -> Iterator[Utterance]:
    """One utterance for each speaker of a cue in turn; a single one has the times of the cue."""
    turns = [(speaker, list(group)) for speaker, group in groupby(words, lambda word: word.speaker)]
    for i, (speaker, group) in enumerate(turns):
        first = start if i == 0 else group[0].start
        last = end if i == len(turns) - 1 else group[-1].end
        yield Utterance(" ".join(word.text for word in group), first, last, speaker)


def _read_textgrid(text: str, path: Path) -> Transcript:
    """The intervals of the tiers that `choose_tiers` takes."""
    try:
        from praatio.utilities import errors, textgrid_io
    except ImportError as error:
        raise DataError(_extra("TextGrid files")) from error
    try:
        grid = textgrid_io.parseTextgridStr(text, includeEmptyIntervals=False)
        tiers = [
            Tier(str(tier["name"]), [Interval(float(a), float(b), str(x)) for a, b, x in tier["entries"]])
            for tier in grid["tiers"]
            if tier["class"] == "IntervalTier"
        ]
    except (errors.PraatioException, ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as TextGrid ({shorten(str(error) or 'damaged', 120)})"
        ) from error
    if not any(x.text.strip() for tier in tiers for x in tier.intervals):
        raise DataError(f"{path}: has no interval with text")
    return _sorted(*read_tiers(tiers, f"{path}: interval"))


def _read_elan(text: str, path: Path) -> Transcript:
    """The annotations of the tiers that `choose_tiers` takes."""
    tiers = read_eaf(text, path)
    if not any(x.text.strip() for tier in tiers for x in tier.intervals):
        raise DataError(f"{path}: has no annotation with text that is aligned with time")
    return _sorted(*read_tiers(tiers, f"{path}: annotation"))


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
    ".eaf": _read_elan,
}
"""Readers by suffix in lower case."""
