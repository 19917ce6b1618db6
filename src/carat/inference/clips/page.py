"""The timeline of a clip as a self-contained HTML page."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from carat.features.media import Media
from carat.inference.clips.previews import FacePicture, face_pictures, find_faces, waveform
from carat.inference.clips.timeline import ScoredSegment, Timeline
from carat.utils.errors import printable
from carat.utils.files import write_atomically
from carat.utils.templates import render, source_hash

TEMPLATE = Path(__file__).with_name("page.html.j2")
STYLE = Path(__file__).with_name("page.css")
SCRIPTS = [Path(__file__).with_name(name) for name in ("page.js", "page_timeline.js", "page_transcript.js")]


def write_page(timeline: Timeline, file: Path, *, media: bool = True) -> None:
    """Write the page: player, waveform, scores of every label over time, transcript, and faces.

    It loads nothing but the media file, from where that is now or from beside the page.

    Args:
        timeline: scored segments.
        file: HTML file to write.
        media: show what is seen and heard; without it, the page has no player, waveform or pictures, and
            does not say where the media file is.

    Raises:
        DataError: the media file cannot be decoded.
        OSError: the page cannot be written.
    """
    style = STYLE.read_text(encoding="utf-8")
    script = "\n".join(path.read_text(encoding="utf-8") for path in SCRIPTS)
    clip = timeline.clip
    text = render(
        TEMPLATE,
        name=printable(clip.file.name),
        length=format_time(clip.duration),
        run=printable(timeline.run),
        validation=None if timeline.validation is None else f"{timeline.validation:.2f}",
        transcript=timeline.transcript,
        modalities=", ".join(timeline.modalities),
        notes=list(dict.fromkeys([*clip.notes, *timeline.notes])),
        count=len(timeline.segments),
        player=("audio" if clip.info.video is None else "video") if media else None,
        has_drops=any(segment.drops for segment in timeline.segments),
        has_attribution=any(segment.prediction.attribution for segment in timeline.segments),
        data=_data(timeline, file, media),
        policy=_policy(style, script),
        style=style,
        script=script,
    )
    write_atomically(file, text)


def format_time(seconds: float) -> str:
    """
    >>> format_time(7384.4), format_time(5)
    ('2:03:04', '0:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _policy(style: str, script: str) -> str:
    """Content Security Policy: nothing is loaded except pictures in the page itself and the media file."""
    return "; ".join(
        [
            "default-src 'none'",
            f"style-src {source_hash(style)}",
            f"script-src {source_hash(script)}",
            "img-src data:",
            "media-src 'self' file: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _data(timeline: Timeline, file: Path, media: bool) -> dict[str, Any]:
    """What the page's script draws."""
    clip = timeline.clip
    duration = max([clip.duration, *(segment.end for segment in timeline.segments)])
    pictures: Mapping[int, FacePicture] = {}
    peaks = None
    faces = find_faces(clip.features)
    has_sound, has_faces = clip.info.audio is not None, clip.info.video is not None and faces is not None
    if media and (has_sound or has_faces):
        with Media(clip.file) as opened:
            if has_sound:
                peaks = _base64(waveform(opened, duration).tobytes())
            if clip.info.video is not None and faces is not None:
                spans = [(segment.start, segment.end) for segment in timeline.segments]
                pictures = face_pictures(opened, faces, spans)
    return {
        "duration": _number(duration),
        "labels": [
            {"name": name, "threshold": _number(threshold)} for name, threshold in timeline.thresholds.items()
        ],
        "segments": [
            _segment(segment, timeline.labels, pictures.get(i)) for i, segment in enumerate(timeline.segments)
        ],
        "waveform": peaks,
        "sources": _sources(clip.file, file) if media else [],
    }


def _segment(segment: ScoredSegment, labels: Sequence[str], picture: FacePicture | None) -> dict[str, Any]:
    """A segment; what it does not have is left out."""
    prediction = segment.prediction
    words = [[word.text, _number(word.start), _number(word.end)] for word in segment.words]
    drops = {
        i: [_number(x) for x in segment.drops[name]]
        for i, name in enumerate(labels)
        if segment.drops and name in segment.drops
    }
    values = {
        "start": _number(segment.start),
        "end": _number(segment.end),
        "speaker": segment.speaker,
        "text": "" if words else segment.text,
        "words": words,
        "scores": [_number(prediction.scores.get(name), 6) for name in labels],
        "labels": [i for i, name in enumerate(labels) if name in prediction.labels],
        "from": {
            i: prediction.attribution[name] for i, name in enumerate(labels) if name in prediction.attribution
        },
        "drops": drops,
        "picture": picture and _picture(picture),
    }
    return {key: value for key, value in values.items() if value or key in ("start", "end")}


def _picture(picture: FacePicture) -> dict[str, Any]:
    return {
        "time": _number(picture.time),
        "box": [_number(x) for x in picture.box],
        "size": [picture.width, picture.height],
        "source": f"data:image/jpeg;base64,{_base64(picture.jpeg)}",
    }


def _number(value: float | None, digits: int = 3) -> float | None:
    """Few decimals, which keeps pages of long recordings small; None for what is no finite number."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _sources(media: Path, page: Path) -> list[str]:
    """Addresses of the media file: relative to the page, then beside the page."""
    try:
        relative = os.path.relpath(media, page.parent)
    except ValueError:  # another drive
        relative = media.name
    paths = dict.fromkeys([Path(relative).as_posix(), media.name])
    return [f"./{quote(os.fsencode(path))}" for path in paths]
