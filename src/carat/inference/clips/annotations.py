"""Annotation files of a scored clip: ELAN (.eaf), Praat (.TextGrid) and subtitles (WebVTT, .vtt)."""

from __future__ import annotations

import mimetypes
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Protocol
from xml.etree import ElementTree

from carat.features.clip import Clip
from carat.inference.clips.layers import (
    ScoreTier,
    elan_name,
    format_score,
    make_tiers,
    milliseconds,
    one_line,
    praat_name,
)
from carat.inference.clips.timeline import ScoredSegment, Timeline
from carat.utils.errors import RunError
from carat.utils.files import replace_file

SCHEMA = "http://www.mpi.nl/tools/elan/EAFv3.0.xsd"
SCHEMA_INSTANCE = "http://www.w3.org/2001/XMLSchema-instance"
TYPES: Mapping[str, str] = {
    "transcript": "",
    "words": "Included_In",
    "emotions": "Symbolic_Association",
    "score": "Symbolic_Association",
}
"""ELAN's linguistic types: how annotations of each kind depend on those of the transcript."""
CONSTRAINTS: Mapping[str, str] = {
    "Included_In": "Time alignable annotations within the parent annotation's time interval, "
    "gaps are allowed",
    "Symbolic_Association": "1-1 association with a parent annotation",
}
"""ELAN's descriptions of the constraints in use."""
BREAKS_PRAATIO = re.compile(r"\b(item|intervals|points) ?\[")
"""Words by which praatio divides a file, even inside of a text."""


def write_eaf(timeline: Timeline, file: Path, *, media: bool = True) -> None:
    """Write an ELAN annotation file, atomically.

    For each speaker: the tier `transcript`, and below it `words`, `emotions` (predicted labels) and one tier
    for each label with its score. Names of tiers end in "@" and the speaker, as usual in ELAN.

    Args:
        timeline: scored clip.
        file: file to write.
        media: name the media file, relative to the annotation file.

    Raises:
        OSError: the file cannot be written.
    """
    # pympi could write it too, but with time slots in no order, and characters that XML does not allow
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT",
        {
            "AUTHOR": "carat",
            "DATE": datetime.now(UTC).isoformat(timespec="seconds"),
            "FORMAT": "3.0",
            "VERSION": "3.0",
            "xmlns:xsi": SCHEMA_INSTANCE,
            "xsi:noNamespaceSchemaLocation": SCHEMA,
        },
    )
    header = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    if media:
        url = _relative_url(timeline.clip.file, file)
        ElementTree.SubElement(
            header, "MEDIA_DESCRIPTOR", MEDIA_URL=url, RELATIVE_MEDIA_URL=url, MIME_TYPE=_mime(timeline.clip)
        )
    order = ElementTree.SubElement(root, "TIME_ORDER")
    document = _Document(root)
    for tiers in make_tiers(timeline):
        document.add(tiers)
    for kind, constraint in TYPES.items():
        alignable = constraint != "Symbolic_Association"
        values = {"LINGUISTIC_TYPE_ID": kind, "TIME_ALIGNABLE": str(alignable).lower()}
        values |= {"CONSTRAINTS": constraint} if constraint else {}
        ElementTree.SubElement(root, "LINGUISTIC_TYPE", values | {"GRAPHIC_REFERENCES": "false"})
    for constraint, description in CONSTRAINTS.items():
        ElementTree.SubElement(root, "CONSTRAINT", STEREOTYPE=constraint, DESCRIPTION=description)
    document.write_time_order(order)
    for name, value in (("run", timeline.run), ("lastUsedAnnotationId", str(document.annotations))):
        ElementTree.SubElement(header, "PROPERTY", NAME=name).text = one_line(value)
    ElementTree.indent(root, "    ")
    replace_file(file, ElementTree.tostring(root, encoding="utf-8", xml_declaration=True), b"\n")


class _Document:
    """The tiers of an ELAN file; IDs and time slots are counted over all of them."""

    def __init__(self, root: ElementTree.Element) -> None:
        self._root = root
        self._slots: list[tuple[int, ElementTree.Element, str]] = []
        self.annotations = 0

    def add(self, tiers: Sequence[ScoreTier]) -> None:
        """Add the tiers of a speaker; the first one has the transcript, the others depend on it."""
        parent = ""
        parents: list[str] = []
        for tier in tiers:
            name = elan_name(tier.name, tier.speaker)
            values = {"LINGUISTIC_TYPE_REF": tier.kind, "TIER_ID": name}
            values |= {"PARENT_REF": parent} if parent else {}
            values |= {"PARTICIPANT": tier.speaker} if tier.speaker else {}
            element = ElementTree.SubElement(self._root, "TIER", values)
            if TYPES[tier.kind] == "Symbolic_Association":
                for span, of in zip(tier.spans, parents, strict=True):
                    self._annotate(element, "REF_ANNOTATION", span.text).set("ANNOTATION_REF", of)
                continue
            for span in tier.spans:
                annotation = self._annotate(element, "ALIGNABLE_ANNOTATION", span.text)
                self._slots.append((span.start, annotation, "TIME_SLOT_REF1"))
                self._slots.append((span.end, annotation, "TIME_SLOT_REF2"))
                if not parent:
                    parents.append(annotation.attrib["ANNOTATION_ID"])
            parent = parent or name

    def write_time_order(self, element: ElementTree.Element) -> None:
        """Number the time slots in the order of their times, and refer to them."""
        in_order = sorted(self._slots, key=lambda slot: slot[0])
        for number, (time, annotation, key) in enumerate(in_order, 1):
            ElementTree.SubElement(element, "TIME_SLOT", TIME_SLOT_ID=f"ts{number}", TIME_VALUE=str(time))
            annotation.set(key, f"ts{number}")

    def _annotate(self, tier: ElementTree.Element, kind: str, text: str) -> ElementTree.Element:
        self.annotations += 1
        outer = ElementTree.SubElement(tier, "ANNOTATION")
        annotation = ElementTree.SubElement(outer, kind, ANNOTATION_ID=f"a{self.annotations}")
        ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = text
        return annotation


def _relative_url(media: Path, file: Path) -> str:
    """Path of the media file as seen from the annotation file.

    If they have no folder in common, it is only the name of the media file, which ELAN looks for beside the
    annotation file: the path would tell where it is on this machine.
    """
    source, folder = os.path.abspath(media), os.path.abspath(file.parent)  # noqa: PTH100  # links are kept
    if os.path.commonpath([source, folder]) == os.sep:
        return f"./{one_line(media.name)}"
    path = one_line(Path(os.path.relpath(source, folder)).as_posix())
    return path if path.startswith("../") else f"./{path}"


def _mime(clip: Clip) -> str:
    known, _ = mimetypes.MimeTypes().guess_type(clip.file.name)
    return known or ("video/*" if clip.info.video is not None else "audio/*")


def write_textgrid(timeline: Timeline, file: Path, *, media: bool = True) -> None:
    """Write a Praat TextGrid, atomically.

    It has the tiers of `write_eaf`, named "Ann - words" as the Montreal Forced Aligner does.

    Args:
        timeline: scored clip.
        file: file to write.
        media: without effect, since the format has no name of a media file.

    Raises:
        OSError: the file cannot be written.
        RunError: the extra is not installed.
    """
    try:
        from praatio.utilities import textgrid_io
    except ImportError as error:
        raise RunError("TextGrid files need the extra: pip install 'carat-emotion[clip]'") from error
    tiers = [tier for group in make_tiers(timeline) for tier in group]
    last = max((span.end for tier in tiers for span in tier.spans), default=1)
    end = max(milliseconds(0.0, timeline.clip.duration)[1], last) / 1000
    grid = {
        "xmin": 0.0,
        "xmax": end,
        "tiers": [
            {
                "class": "IntervalTier",
                "name": _unbroken(praat_name(tier.name, tier.speaker)),
                "xmin": 0.0,
                "xmax": end,
                "entries": [(x.start / 1000, x.end / 1000, _unbroken(x.text)) for x in tier.spans],
            }
            for tier in tiers
        ],
    }
    content = textgrid_io.getTextgridAsStr(grid, "long_textgrid", includeBlankSpaces=True)
    replace_file(file, content.encode())


def _unbroken(text: str) -> str:
    """Widen the space in "item [", by which praatio would divide the file.

    >>> _unbroken("item [3], items [")
    'item  [3], items ['
    """
    return BREAKS_PRAATIO.sub(r"\1  [", text)


def write_webvtt(timeline: Timeline, file: Path, *, media: bool = True) -> None:
    """Write WebVTT subtitles, atomically: what is said, and below it the predicted labels with their scores.

    Args:
        timeline: scored clip.
        file: file to write.
        media: without effect, since the format has no name of a media file.

    Raises:
        OSError: the file cannot be written.
        RunError: the extra is not installed.
    """
    try:
        import webvtt
    except ImportError as error:
        raise RunError("subtitles need the extra: pip install 'carat-emotion[clip]'") from error
    cues = []
    for segment in timeline.segments:
        start, end = milliseconds(segment.start, segment.end)
        cues.append((start, end, webvtt.Caption(_clock(start), _clock(end), _payload(segment))))
    captions = [caption for _, _, caption in sorted(cues, key=lambda cue: cue[:2])]
    content = webvtt.WebVTT(captions=captions).content.rstrip("\n")
    replace_file(file, content.encode(), b"\n")


def _payload(segment: ScoredSegment) -> str:
    """Text of a cue; everything in it is escaped, and no line is empty."""
    prediction = segment.prediction
    labels = ", ".join(f"{name} {format_score(prediction.scores[name])}" for name in prediction.labels)
    shown = f"<c.labels>[{_escape(labels or 'no label')}]</c>"
    spoken = _escape(segment.text)
    speaker = _escape(segment.speaker)
    lines = f"{spoken}\n{shown}" if spoken else shown
    return f"<v {speaker}>{lines}</v>" if speaker else lines


def _escape(text: str) -> str:
    return escape(one_line(text), quote=False)


def _clock(time: int) -> str:
    """
    >>> _clock(3_723_004)
    '01:02:03.004'
    """
    return f"{time // 3_600_000:02d}:{time // 60_000 % 60:02d}:{time // 1000 % 60:02d}.{time % 1000:03d}"


class AnnotationWriter(Protocol):
    """Writes a timeline to an annotation file."""

    def __call__(self, timeline: Timeline, file: Path, *, media: bool = True) -> None: ...


ANNOTATION_WRITERS: Mapping[str, AnnotationWriter] = {
    ".eaf": write_eaf,
    ".TextGrid": write_textgrid,
    ".vtt": write_webvtt,
}
"""Writers by file extension."""
