"""ELAN's annotation files (.eaf) as transcripts: what is aligned with time in them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from carat.features.tiers import MAX_SECONDS, Interval, Tier
from carat.utils.errors import DataError, first_line, shorten

MAX_TAGS = 2_000_000
"""Largest number of tags; an hour of speech with every word annotated has some 100,000."""
DECLARATION = re.compile(r"<!(?:DOCTYPE|ENTITY)\b")


def read_eaf(text: str, path: Path) -> list[Tier]:
    """Read the tiers of an ELAN file that are aligned with time; annotations of annotations are left out.

    Annotations without times of their own, which divide another one, are interpolated.

    Args:
        text: content of the file.
        path: name of the file, for messages.

    Raises:
        DataError: it is no ELAN file, is damaged, or has times that are missing or invalid.
    """
    root = _parse(text, path)
    if root.tag != "ANNOTATION_DOCUMENT":
        raise DataError(f"{path}: is no ELAN file: <{_short(root.tag)}> instead of <ANNOTATION_DOCUMENT>")
    origin = _check_header(root, path)
    slots = dict(_time_slots(root, path))
    tiers = []
    for tier in root.iterfind("TIER"):
        name, participant = tier.get("TIER_ID", ""), " ".join(tier.get("PARTICIPANT", "").split())
        where = f"{path}: tier '{_short(name)}'"
        tiers.append(Tier(name, _intervals(tier, slots, origin, where), participant))
    return tiers


def _parse(text: str, path: Path) -> ElementTree.Element:
    """Parse XML without a document type, whose entities could grow without limit or name other files."""
    if DECLARATION.search(text):
        raise DataError(f"{path}: has a document type declaration (<!DOCTYPE), which ELAN files do not have")
    if text.count("<") > MAX_TAGS:
        raise DataError(f"{path}: has more than {MAX_TAGS:,} tags, which is the limit")
    try:
        return ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as eaf ({shorten(first_line(error), 120)})") from error


def _check_header(root: ElementTree.Element, path: Path) -> float:
    """Check the unit of time, and return where in the media file the annotations' time begins, in seconds."""
    header = root.find("HEADER")
    if header is None:
        return 0.0
    unit = header.get("TIME_UNITS", "milliseconds")
    if unit != "milliseconds":
        raise DataError(
            f"{path}: has times in {_short(unit)}, expected milliseconds: save it again with ELAN"
        )
    media = header.find("MEDIA_DESCRIPTOR")
    origin = "0" if media is None else media.get("TIME_ORIGIN", "0")
    return _seconds(origin, f"{path}: TIME_ORIGIN")


def _time_slots(root: ElementTree.Element, path: Path) -> Iterator[tuple[str, float | None]]:
    """Times of the slots in seconds; None for a slot that has no time."""
    for slot in root.iterfind("TIME_ORDER/TIME_SLOT"):
        name, value = slot.get("TIME_SLOT_ID", ""), slot.get("TIME_VALUE")
        yield name, None if value is None else _seconds(value, f"{path}: time slot '{_short(name)}'")


def _seconds(milliseconds: str, where: str) -> float:
    if not re.fullmatch(r"\s*[+-]?\d{1,15}\s*", milliseconds):
        raise DataError(f"{where} is '{_short(milliseconds)}', expected a number of milliseconds")
    seconds = int(milliseconds) / 1000
    if not 0 <= seconds <= MAX_SECONDS:
        raise DataError(f"{where} is {seconds:.10g} s, expected 0 to {MAX_SECONDS:g} s")
    return seconds


def _intervals(
    tier: ElementTree.Element, slots: Mapping[str, float | None], origin: float, where: str
) -> list[Interval]:
    """Annotations of a tier that refer to time slots."""
    bounds: list[str] = []
    texts: list[str] = []
    for annotation in tier.iterfind("ANNOTATION/ALIGNABLE_ANNOTATION"):
        for key in ("TIME_SLOT_REF1", "TIME_SLOT_REF2"):
            name = annotation.get(key, "")
            if name not in slots:
                raise DataError(f"{where} refers to time slot '{_short(name)}', which does not exist")
            bounds.append(name)
        texts.append(annotation.findtext("ANNOTATION_VALUE") or "")
    times = _interpolate(bounds, slots, where)
    return [
        Interval(
            times[start] + origin,
            times[end] + origin,
            text,
            measured=slots[start] is not None and slots[end] is not None,
        )
        for start, end, text in zip(bounds[::2], bounds[1::2], texts, strict=True)
    ]


def _interpolate(bounds: Sequence[str], slots: Mapping[str, float | None], where: str) -> dict[str, float]:
    """Times of the bounds of a tier's annotations; those without one lie evenly between their neighbors."""
    names = list(dict.fromkeys(bounds))
    known = {i: time for i, name in enumerate(names) if (time := slots[name]) is not None}
    if not names:
        return {}
    if not {0, len(names) - 1} <= known.keys():
        raise DataError(f"{where} has annotations without times, and none around them with times")
    times = np.interp(range(len(names)), list(known), list(known.values()))
    return dict(zip(names, times.tolist(), strict=True))


def _short(text: str) -> str:
    return shorten(text, 40)
