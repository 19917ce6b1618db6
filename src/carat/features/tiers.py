"""Tiers of annotation files: which of them have what is said, and who says it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from carat.features.utterances import Utterance, group_words
from carat.features.words import Word, spread
from carat.utils.errors import DataError, shorten

MAX_SECONDS = 100 * 3600.0
ROLES: Mapping[str, re.Pattern[str]] = {
    role: re.compile(pattern, re.IGNORECASE)
    for role, pattern in {
        "words": r"words?|orthography|ort|kan|ort-mau",
        "utterances": r"(?:transcript|transcription|utterance|sentence|phrase|turn|ipu)s?|"
        r"utt|tx|txt|text|speech|spch|default",
        "other": r"(?:phone|phoneme|segment|syllable|tone|break|translation|lemma|morph|morpheme|note|"
        r"comment|gesture|emotion|label|score|topic|event|noise|pause|silence|speaker)s?|"
        r"gloss(?:es)?|phonetic|mau|kas|tobi|pitch|ipa|pos|gaze|head|face|laughter|music|vad",
    }.items()
}
"""What is annotated, by the names of tiers as forced aligners and people write them."""
SILENCES = ("<eps>", "<sil>", "sil", "sp", "<p:>", "<p>")
"""What forced aligners write into tiers with words where nobody speaks."""
PERSON = re.compile(
    r"(?:speaker|spkr?|participant|subject|interviewer|interviewee|therapist|patient|client|doctor|teacher|"
    r"student|mother|father|child|host|guest|[a-z])(?:[\s_.-]*(?:\d{1,4}|[a-z]))?",
    re.IGNORECASE,
)
NO_PERSON = re.compile(r"(?:tier|layer|level|track|channel)[\s_.-]*\d*", re.IGNORECASE)
LAYER = 0.8
"""Share of equal intervals above which a tier is another description of what another tier has."""


@dataclass(frozen=True)
class Interval:
    """An annotated stretch of time.

    Args:
        start: seconds from the start of the file.
        end: likewise.
        text: annotation.
        measured: whether start and end are the interval's own, not interpolated.
    """

    start: float
    end: float
    text: str
    measured: bool = True


@dataclass(frozen=True)
class Tier:
    """A tier of an annotation file.

    Args:
        name: its name.
        intervals: intervals with text.
        participant: who is annotated, if the file says so; otherwise the name may.
    """

    name: str
    intervals: Sequence[Interval]
    participant: str = ""

    @property
    def speaker(self) -> str:
        """Who is annotated; empty if unknown."""
        return self.participant or self._parsed[0]

    @property
    def role(self) -> str:
        """What is annotated, one of `ROLES`; empty if the name does not say it."""
        return self._parsed[1]

    @cached_property
    def _parsed(self) -> tuple[str, str]:
        return parse_name(self.name)


def parse_name(name: str) -> tuple[str, str]:
    """Parse the name of a tier into speaker and role, as forced aligners, ELAN and carat write them.

    >>> parse_name("Ann - words"), parse_name("words@Ann"), parse_name("Ann"), parse_name("phones")
    (('Ann', 'words'), ('Ann', 'words'), ('Ann', ''), ('', 'other'))
    """
    name = " ".join(name.split())
    if role := _role(name):
        return "", role
    if PERSON.fullmatch(name):
        return name, ""
    for separator in (" - ", " – ", "@", "_", "-"):
        for left, found, right in (name.rpartition(separator), name.partition(separator)):
            for speaker, what in ((left, right), (right, left)):
                if found and (role := _role(what)) and (separator not in "_-" or _is_person(speaker)):
                    return speaker, role
    if "@" in name:
        return name.partition("@")[2], ""
    return (name, "") if _is_person(name) else ("", "")


def _role(name: str) -> str:
    return next((role for role, pattern in ROLES.items() if pattern.fullmatch(name)), "")


def _is_person(name: str) -> bool:
    if not name or NO_PERSON.fullmatch(name):
        return False
    return bool(PERSON.fullmatch(name)) or (name[0].isalpha() and not name[0].islower())


def choose_tiers(tiers: Sequence[Tier]) -> list[Tier]:
    """Choose the tiers with what is said: one of each speaker, those with words first.

    If neither the names nor the participants tell, it is the first one.

    Args:
        tiers: tiers with text, at least one.
    """
    words = _first_of_each_speaker(tier for tier in tiers if tier.role == "words")
    utterances = _first_of_each_speaker(tier for tier in tiers if tier.role == "utterances")
    others = [tier for tier in tiers if tier.role != "other"] or list(tiers)
    if chosen := words or utterances:
        if all(tier.speaker for tier in chosen):
            further = [*utterances, *(tier for tier in others if tier.participant)]
            chosen = _first_of_each_speaker([*chosen, *(tier for tier in further if tier.speaker)])
        return chosen
    people = _without_layers(_first_of_each_speaker(tier for tier in others if tier.speaker))
    return people if len(people) > 1 else others[:1]


def _first_of_each_speaker(tiers: Iterable[Tier]) -> list[Tier]:
    first: dict[str, Tier] = {}
    for tier in tiers:
        first.setdefault(tier.speaker, tier)
    return list(first.values())


def _without_layers(tiers: Sequence[Tier]) -> list[Tier]:
    """Leave out tiers that have the times of another one, such as its translation."""
    seen: set[tuple[float, float]] = set()
    chosen = []
    for tier in tiers:
        times = {(round(x.start, 3), round(x.end, 3)) for x in tier.intervals}
        if len(times & seen) < max(LAYER * len(times), 2):  # once may be chance
            chosen.append(tier)
            seen |= times
    return chosen


def read_tiers(tiers: Sequence[Tier], where: str) -> tuple[list[Utterance], list[Word]]:
    """Read what is said; words of a tier with words are grouped into utterances.

    Args:
        tiers: all tiers of a file.
        where: name of the file and what an annotation is called, for messages.

    Raises:
        DataError: times that are invalid.
    """
    filled = [replace(tier, intervals=[x for x in tier.intervals if x.text.strip()]) for tier in tiers]
    filled = [tier for tier in filled if tier.intervals]
    utterances: list[Utterance] = []
    words: list[Word] = []
    for tier in choose_tiers(filled) if filled else []:
        has_words = tier.role == "words"
        said = []
        for interval in tier.intervals:
            start, end, text = interval.start, interval.end, " ".join(interval.text.split())
            check_times(start, end, f"{where} '{shorten(text, 30)}'")
            if has_words and text.lower() in SILENCES:
                continue
            spoken = spread(text, start, end)
            measured = interval.measured and len(spoken) == 1
            said += [replace(word, measured=measured, speaker=tier.speaker) for word in spoken]
            if not has_words:
                utterances.append(Utterance(text, start, end, tier.speaker))
        if has_words:
            utterances += group_words(sorted(said, key=lambda word: (word.start, word.end)))
        words += said
    return utterances, words


def check_times(start: float, end: float, where: str) -> None:
    """Check the times of a part of a transcript.

    Raises:
        DataError: they are negative, reversed or larger than any recording is long.
    """
    if not 0 <= start <= end <= MAX_SECONDS:
        raise DataError(
            f"{where} is from {start:g} to {end:g} s, expected a start before its end"
            if start > end
            else f"{where} is from {start:g} to {end:g} s, expected 0 to {MAX_SECONDS:g} s"
        )
