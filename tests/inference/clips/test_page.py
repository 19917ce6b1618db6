"""The page of a clip: what it has, what it must not have, and how it behaves in a browser."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from carat.inference.clips.page import write_page
from carat.inference.clips.previews import RATE, face_pictures, waveform
from carat.inference.clips.timeline import Timeline
from carat.utils.errors import DataError
from carat.utils.templates import source_hash
from tests.features.files import BLUE, GREEN, RED, flat, tone, write_media
from tests.inference.clips.timelines import faces, segment, timeline

HOSTILE = "</script><img src=x onerror=alert(1)>\u202e\"'&<!--\n\u2028"
FIRST = segment(
    0.5, 1.2, "I am so glad", {"happy": 0.9, "sad": 0.1, "angry": 0.3}, attribution={"happy": "voice"}
)
SECOND = segment(1.5, 2.6, "but not today", {"happy": 0.2, "sad": 0.7, "angry": 0.6}, speaker="Ann")


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seconds: red, green, blue, with silence in the second one."""
    pytest.importorskip("av")
    sound = tone(3, 16_000)
    sound[16_000:32_000] = 0
    pictures = [(i / 10, flat((RED, GREEN, BLUE)[i // 10])) for i in range(30)]
    file = tmp_path_factory.mktemp("media") / "a clip #1.webm"
    return write_media(file, sound=sound, audio_codec="libopus", pictures=pictures, video_codec="libvpx")


class Outline(HTMLParser):
    """Elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._in = tag

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        if self._in in ("script", "style"):
            self.scripts.append(data)
        else:
            self.text += data

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def read(line: Timeline, file: Path, *, media: bool = True) -> tuple[str, Outline, dict[str, Any]]:
    """Write a page and return its text, its outline and its data."""
    write_page(line, file, media=media)
    text = file.read_text(encoding="utf-8")
    outline = Outline(text)
    return text, outline, json.loads(outline.scripts[1])


def silent(file: Path, *segments: Any, **values: Any) -> Timeline:
    """A timeline of a file that is not read, since it has neither sound nor faces."""
    return timeline(file, segments, duration=3.0, audio=False, **values)


def test_scores_words_and_labels_of_segments(tmp_path: Path) -> None:
    _, outline, data = read(silent(Path("clip.mp4"), FIRST, SECOND), tmp_path / "page.html")
    assert data["labels"][1] == {"name": "sad", "threshold": 0.5}
    first, second = data["segments"]
    assert (first["start"], first["end"], first["scores"], first["labels"]) == (
        0.5,
        1.2,
        [0.9, 0.1, 0.3],
        [0],
    )
    assert first["from"] == {"0": "voice"}
    assert [word[0] for word in first["words"]] == ["I", "am", "so", "glad"]
    assert first["drops"]["0"] == [0.27, -0.225, 0.18, -0.135]
    assert (second["speaker"], second["labels"]) == ("Ann", [1, 2])
    assert data["duration"] == 3.0
    assert {"video", "canvas", "select"} <= outline.tags()


def test_header_names_file_run_modalities_and_notes(tmp_path: Path) -> None:
    line = silent(
        Path("clip.mp4"), FIRST, run="my-run", notes=["Words have no times.", "Words have no times."]
    )
    line = replace(line, clip=replace(line.clip, duration=3723.0, notes=["No face was found."]))
    _, outline, _ = read(line, tmp_path / "page.html")
    text = " ".join(outline.text.split())
    for part in ("clip.mp4", "1:02:03", "my-run", "text, voice, face", "not facts about a person"):
        assert part in text
    assert text.count("Words have no times.") == 1
    assert "No face was found." in text


def test_policy_permits_own_style_and_script_only(tmp_path: Path) -> None:
    text, outline, _ = read(silent(Path("clip.mp4"), FIRST), tmp_path / "page.html")
    policy = next(attributes["content"] for tag, attributes in outline.elements if "http-equiv" in attributes)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert rules["default-src"] == "'none'"
    assert rules["style-src"] == source_hash(outline.scripts[0])
    assert rules["script-src"] == source_hash(outline.scripts[2])
    assert rules["img-src"] == "data:"
    assert rules["media-src"] == "'self' file: blob:"
    assert text.index("http-equiv") < text.index("<style")
    assert not any("style" in attributes for _, attributes in outline.elements)


def test_nothing_outside_is_named(tmp_path: Path) -> None:
    text, outline, _ = read(silent(Path("clip.mp4"), FIRST), tmp_path / "page.html")
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)
    links = [
        (tag, a["src" if "src" in a else "href"]) for tag, a in outline.elements if {"src", "href"} & set(a)
    ]
    assert links == [("link", "data:,")]


def test_hostile_names_and_texts_stay_text(tmp_path: Path) -> None:
    bad = segment(0, 1, "", {HOSTILE: 0.9}, speaker=HOSTILE, attribution={HOSTILE: HOSTILE})
    bad = replace(bad, text=HOSTILE)
    line = silent(
        Path(HOSTILE.replace("/", "")),
        bad,
        labels=[HOSTILE],
        run=HOSTILE,
        modalities=[HOSTILE],
        notes=[HOSTILE],
    )
    good = silent(Path("clip.mp4"), replace(bad, text="a", speaker="b"), labels=["c"], notes=["d"])
    text, outline, data = read(line, tmp_path / "page.html")
    _, expected, _ = read(good, tmp_path / "good.html")
    assert [tag for tag, _ in outline.elements] == [tag for tag, _ in expected.elements]
    assert (
        data["labels"][0]["name"] == data["segments"][0]["text"] == data["segments"][0]["speaker"] == HOSTILE
    )
    assert "<img" not in text
    assert text.count("</script>") == 2


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    line = silent(Path("caf\udce9.mp4"), segment(0, 1, "a\udc80b", {"happy": 0.9, "sad": 0, "angry": 0}))
    _, outline, data = read(line, tmp_path / "page.html")
    assert "caf?.mp4" in outline.text
    assert data["sources"][-1] == "./caf%E9.mp4"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_left_out(tmp_path: Path, value: float) -> None:
    one = segment(0, 1, "a b", {"happy": value, "sad": 0.5, "angry": 0.5})
    line = replace(silent(Path("a.mp4"), one), thresholds={"happy": value, "sad": 0.5, "angry": 0.5})
    _, _, data = read(line, tmp_path / "page.html")
    assert data["segments"][0]["scores"] == [None, 0.5, 0.5]
    assert data["labels"][0]["threshold"] is None


@pytest.mark.parametrize(
    ("media", "page", "expected"),
    [
        ("a.mp4", "page.html", ["./a.mp4"]),
        ("in/a b#?%.mp4", "out/page.html", ["./../in/a%20b%23%3F%25.mp4", "./a%20b%23%3F%25.mp4"]),
        ("x:y.wav", "page.html", ["./x%3Ay.wav"]),
        ("sub/ü.wav", "page.html", ["./sub/%C3%BC.wav", "./%C3%BC.wav"]),
    ],
)
def test_media_file_is_found_relative_to_the_page(
    tmp_path: Path, media: str, page: str, expected: list[str]
) -> None:
    _, _, data = read(silent(tmp_path / media, FIRST), tmp_path / page)
    assert data["sources"] == expected


def test_waveform_is_loud_where_the_sound_is(video: Path, tmp_path: Path) -> None:
    _, _, data = read(timeline(video, [FIRST], duration=3.0), tmp_path / "page.html")
    peaks = np.frombuffer(base64.b64decode(data["waveform"]), np.uint8)
    assert len(peaks) == 2000
    assert peaks.max() == 255
    assert peaks[100:600].mean() > 200
    assert peaks[750:1250].max() < 20


class Sound:
    """Sound in blocks of odd sizes, as `Media.audio` yields it."""

    def __init__(self, samples: np.ndarray) -> None:
        self.samples = samples

    def audio(self, rate: int) -> Any:
        assert rate == RATE
        return (self.samples[i : i + 1021] for i in range(0, len(self.samples), 1021))


@pytest.mark.parametrize(("seconds", "columns"), [(1, 2000), (300, 3000), (5000, 20_000)])
def test_waveforms_of_long_recordings_have_more_columns(seconds: int, columns: int) -> None:
    assert len(waveform(Sound(np.ones(3, np.float32)), seconds)) == columns  # type: ignore[arg-type]


@pytest.mark.parametrize("columns", [7, 2000])
@pytest.mark.parametrize("samples", [5, 1021, pytest.param(20_000, marks=pytest.mark.slow)])
def test_waveform_equals_the_largest_amplitudes(samples: int, columns: int) -> None:
    sound = np.random.default_rng(1).normal(size=samples).astype(np.float32)
    peaks = waveform(Sound(sound), samples / RATE, columns)  # type: ignore[arg-type]
    count = min(columns, samples)
    groups = [
        [abs(x) for i, x in enumerate(sound) if i * count // samples == column] for column in range(count)
    ]
    largest = np.array([max(group) for group in groups])
    np.testing.assert_array_equal(peaks, np.round(255 * largest / largest.max()).astype(np.uint8))


def test_waveform_of_silence_and_of_sound_beyond_the_end() -> None:
    assert not waveform(Sound(np.zeros(4000, np.float32)), 0.5).any()  # type: ignore[arg-type]
    sound = np.repeat(np.float32([0.5, 1.0]), 4000)
    assert (waveform(Sound(sound), 0.5, 10) == 255).all()  # type: ignore[arg-type]


def test_pictures_show_the_clearest_face_of_each_segment(video: Path, tmp_path: Path) -> None:
    seen = faces(
        [0.6, 0.8, 1.1, 2.3], [0.5, 0.9, 0.99, 0.7], [[0.1, 0.2, 0.3, 0.4 + i / 10] for i in range(4)]
    )
    late = segment(2.7, 3.0, "no face here", {"happy": 0, "sad": 0, "angry": 0})
    line = timeline(video, [replace(FIRST, end=1.0), SECOND, late], duration=3.0, faces=seen)
    _, _, data = read(line, tmp_path / "page.html")
    first, second, third = data["segments"]
    assert (first["picture"]["time"], second["picture"]["time"]) == (0.8, 2.3)
    assert first["picture"]["box"] == [0.1, 0.2, 0.3, 0.5]
    assert second["picture"]["box"] == [0.1, 0.2, 0.3, 0.7]
    assert first["picture"]["size"] == [64, 48]
    assert "picture" not in third
    from PIL import Image

    for part, channel in ((first, 0), (second, 2)):
        kind, content = part["picture"]["source"].split(",")
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
        assert kind == "data:image/jpeg;base64"
        assert pixels.shape == (48, 64, 3)
        assert pixels.mean((0, 1)).argmax() == channel


class Pictures:
    """Pictures as `Media.pictures` yields them, which counts them."""

    def __init__(self) -> None:
        self.shown = 0

    def pictures(self, rate: float, size: int, wanted: Sequence[int]) -> Any:
        from carat.features.media import Picture

        for i in wanted:
            self.shown += 1
            yield Picture(i, i / rate, np.zeros((3, 5, 3), np.uint8))


def test_pictures_are_few_and_chosen_evenly() -> None:
    times = np.arange(0, 100, 0.2)
    seen = faces(times.tolist(), np.ones(500), np.zeros((500, 4)), rate=5.0)
    media = Pictures()
    spans = [(float(i), i + 1.0) for i in range(97)]
    found = face_pictures(media, seen, spans, limit=5)  # type: ignore[arg-type]
    assert list(found) == [0, 24, 48, 72, 96]
    assert [picture.time for picture in found.values()] == [0, 24, 48, 72, 96]
    assert media.shown == 5  # others are not decoded


def test_no_pictures_are_decoded_without_faces() -> None:
    media = Pictures()
    seen = faces([5.0], [1.0], [[0, 0, 1, 1]])
    assert face_pictures(media, seen, [(0.0, 1.0)]) == {}  # type: ignore[arg-type]
    assert media.shown == 0


def test_no_media_leaves_nothing_of_sound_pictures_and_path(video: Path, tmp_path: Path) -> None:
    seen = faces([0.6], [0.9], [[0, 0, 1, 1]])
    text, outline, data = read(
        timeline(video, [FIRST], duration=3.0, faces=seen), tmp_path / "page.html", media=False
    )
    assert data["waveform"] is None
    assert data["sources"] == []
    assert "picture" not in data["segments"][0]
    assert not {"video", "audio", "img", "input"} & outline.tags()
    assert str(video.parent) not in text
    assert "%20" not in text
    assert "data:image" not in text
    assert video.name in text


def test_no_media_does_not_need_the_media_file(tmp_path: Path) -> None:
    line = timeline(tmp_path / "gone.mp4", [FIRST], duration=3.0)
    write_page(line, tmp_path / "page.html", media=False)
    with pytest.raises(DataError, match=r"gone\.mp4"):
        write_page(line, tmp_path / "page.html")
    assert "gone.mp4" in (tmp_path / "page.html").read_text(encoding="utf-8")  # the old page remains


@pytest.mark.parametrize("audio", [True, False])
def test_files_with_sound_only_have_an_audio_player(video: Path, tmp_path: Path, audio: bool) -> None:
    line = timeline(video, [FIRST], duration=3.0, audio=audio, video=not audio)
    _, outline, data = read(line, tmp_path / "page.html")
    assert ("audio" in outline.tags(), "video" in outline.tags()) == (audio, not audio)
    assert (data["waveform"] is None) is not audio


def test_page_of_a_long_recording_is_small(tmp_path: Path) -> None:
    one = segment(0, 4, " ".join(["word"] * 17), {"happy": 0.123456789, "sad": 0.7, "angry": 0.4})
    segments = [replace(one, start=i * 4.8, end=i * 4.8 + 4) for i in range(1500)]
    file = tmp_path / "page.html"
    write_page(timeline(Path("a.wav"), segments, duration=7200.0, audio=False, video=False), file)
    assert file.stat().st_size < 2_000_000


def test_two_pages_of_the_same_timeline_are_equal(video: Path, tmp_path: Path) -> None:
    line = timeline(video, [FIRST], duration=3.0, faces=faces([0.6], [0.9], [[0, 0, 1, 1]]))
    for name in ("a.html", "b.html"):
        write_page(line, tmp_path / name)
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()
