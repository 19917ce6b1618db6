"""The page of a clip in Chromium: player, timeline and transcript stay in step."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from carat.inference.clips.page import write_page
from tests.features.files import BLUE, GREEN, RED, flat, tone, write_media
from tests.inference.clips.browser import CHROMIUM, Browser
from tests.inference.clips.timelines import faces, segment, timeline

pytest.importorskip("av")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

LABELS = [f"label {i}" for i in range(28)]
SEGMENTS = [
    segment(
        0.3, 0.9, "I am so glad", {"happy": 0.9, "sad": 0.1, "angry": 0.6}, attribution={"happy": "voice"}
    ),
    segment(1.2, 1.9, "but not today", {"happy": 0.2, "sad": 0.7, "angry": 0.1}, speaker="Ann"),
    segment(2.1, 2.8, "nothing", {"happy": 0.2, "sad": 0.3, "angry": 0.1}, drops=False),
]
CURSOR = "document.getElementById('cursor').getBoundingClientRect().x + 1"
CURRENT = (
    "[...document.querySelectorAll('#segments > li')].findIndex(row => row.hasAttribute('aria-current'))"
)
IS_INSIDE = (
    "((a, b) => a.{2} >= b.{2} && a.{3} <= b.{3})({0}.getBoundingClientRect(), {1}.getBoundingClientRect())"
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of three seconds with its page beside it."""
    folder = tmp_path_factory.mktemp("pages")
    pictures = [(i / 10, flat((RED, GREEN, BLUE)[i // 10])) for i in range(30)]
    video = write_media(
        folder / "a clip #1.webm",
        sound=tone(3, 16_000),
        audio_codec="libopus",
        pictures=pictures,
        video_codec="libvpx",
    )
    seen = faces([0.5, 1.5], [0.9, 0.9], [[0.25, 0.5, 0.25, 0.25]] * 2)
    write_page(timeline(video, SEGMENTS, duration=3.0, faces=seen), folder / "page.html")
    return folder


def open_page(browser: Browser, folder: Path, **window: int) -> None:
    browser.open(folder / "page.html", **window)  # type: ignore[arg-type]
    browser.wait("player.readyState >= 2")


def cursor(browser: Browser) -> float:
    """Where the cursor is, in seconds."""
    place = browser.run("(r => [r.x, r.width])(document.getElementById('view').getBoundingClientRect())")
    return float((browser.run(CURSOR) - place[0]) / place[1] * 3.0)


def test_page_loads_without_errors_and_without_other_requests(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    assert browser.problems == []
    outside = [url for url in browser.requests if not url.startswith(("data:", folder.as_uri()))]
    assert outside == []
    assert any(url.endswith("a%20clip%20%231.webm") for url in browser.requests)
    assert browser.run("document.querySelectorAll('#segments > li').length") == 3


def test_policy_stops_scripts_and_requests(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    browser.run(
        "const added = document.createElement('script'); added.textContent = 'window.harm = 1';"
        "document.body.append(added); 0"
    )
    assert browser.run("window.harm") is None
    assert (
        browser.run("fetch('https://example.invalid/').then(() => 'sent', error => error.name)")
        == "TypeError"
    )
    broken = [problem for problem in browser.problems if "Content Security Policy" in problem]
    assert "script-src" in broken[0]
    assert "connect-src" in broken[1]


def test_cursor_and_segments_follow_the_player(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    for at, expected in ((0.5, 0), (1.0, -1), (1.5, 1), (2.5, 2)):
        browser.run(f"player.currentTime = {at}; 0")
        browser.wait(f"{CURRENT} === {expected} && !player.seeking")
        assert cursor(browser) == pytest.approx(at, abs=0.02)
    assert browser.run("seek(duration), view.scrollWidth === view.clientWidth")
    browser.run("seek(2.5); 0")
    assert "Segment 3 of 3" in browser.run("document.getElementById('when').textContent")
    assert browser.run("view.getAttribute('aria-valuetext')") == "0:02.5 of 0:03.0"


def test_cursor_moves_while_playing(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    browser.press(" ", " ")
    browser.wait(f"{CURRENT} === 0")
    assert browser.run("player.paused") is False
    browser.press(" ", " ")
    assert browser.run("player.paused") is True
    assert cursor(browser) == pytest.approx(browser.run("player.currentTime"), abs=0.1)


def test_clicks_seek_the_player(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    browser.click("#segments > li:nth-child(2) .time")
    browser.wait("Math.abs(player.currentTime - 1.2) < 0.01")
    assert browser.run(CURRENT) == 1
    browser.click("#segments > li:nth-child(1) .word:nth-child(4)")
    start = SEGMENTS[0].words[3].start
    browser.wait(f"Math.abs(player.currentTime - {start}) < 0.01")
    assert browser.run("document.querySelector('.word.spoken').textContent") == "glad"
    x, y, width = browser.run("(r => [r.x, r.y, r.width])(view.getBoundingClientRect())")
    browser.run("window.scrollTo(0, 0); 0")
    y = browser.run("view.getBoundingClientRect().y")
    browser.click_at(x + width * 2.5 / 3, y + 40)
    browser.wait("Math.abs(player.currentTime - 2.5) < 0.02")
    assert browser.run(CURRENT) == 2


def test_arrows_step_through_segments(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    seen = []
    for key in ("ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft"):
        browser.press(key)
        seen.append(browser.run(CURRENT))
    assert seen == [0, 1, 2, 2, 1]
    browser.run("seek(1.0); 0")
    browser.press("ArrowLeft")
    assert browser.run(CURRENT) == 0


def test_words_are_colored_for_the_label_that_is_chosen(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    classes = (
        "[...document.querySelectorAll('#segments > li:nth-child(1) .word')].map(word => word.className)"
    )
    assert browser.run(classes) == ["word up", "word down", "word up", "word down"]
    title = "document.querySelector('#segments .word').title"
    assert browser.run(title) == "happy: 0.270 lower without this word"
    choose = "wordLabel.value = '{}'; wordLabel.dispatchEvent(new Event('change')); 0"
    browser.run(choose.format(2))
    assert browser.run(title) == "angry: 0.180 lower without this word"
    browser.run(choose.format("none"))
    assert browser.run(classes) == ["word"] * 4


def test_filter_lists_segments_with_a_label(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    listed = "[...document.querySelectorAll('#segments > li')].map(row => row.checkVisibility())"
    for value, expected in (("any", [1, 1, 0]), ("1", [0, 1, 0]), ("all", [1, 1, 1])):
        browser.run(f"filter.value = '{value}'; filter.dispatchEvent(new Event('change')); 0")
        assert browser.run(listed) == [bool(x) for x in expected]


def test_chips_and_faces(browser: Browser, folder: Path) -> None:
    open_page(browser, folder)
    chips = (
        "[...document.querySelectorAll('#segments > li:nth-child({}) .chips > *')].map(x => x.textContent)"
    )
    assert browser.run(chips.format(1)) == ["happy 0.90 from voice", "angry 0.60"]
    assert browser.run(chips.format(3)) == ["no label above its threshold (highest: sad 0.30)"]
    browser.run("document.querySelector('.face').scrollIntoView(); 0")
    browser.wait("document.querySelector('.face img').naturalWidth === 64")
    box = browser.run(
        "((a, b) => [(b.x - a.x) / a.width, (b.y - a.y) / a.height, b.width / a.width, b.height / a.height])"
        "(...['.face img', '.face .box'].map(name => document.querySelector(name).getBoundingClientRect()))"
    )
    assert box == pytest.approx([0.25, 0.5, 0.25, 0.25], abs=0.01)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 390, 1280, 1600])
def test_no_horizontal_scrolling_of_the_page(
    browser: Browser, tmp_path: Path, width: int, dark: bool
) -> None:
    scores = dict.fromkeys(LABELS, 0.6)
    long = "Donaudampfschifffahrtsgesellschaftskapitänsmützenabzeichenverordnung" * 2
    rows = [segment(i, i + 0.9, f"{long} and", scores, speaker=long) for i in range(90)]
    line = timeline(tmp_path / f"{long}.mp4", rows, duration=90.0, labels=LABELS, run=long, notes=[long])
    write_page(line, tmp_path / "page.html", media=False)
    browser.open(tmp_path / "page.html", width=width, dark=dark)
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("list.scrollWidth <= list.clientWidth")
    assert browser.problems == []


def test_long_recordings_are_zoomed_and_the_view_follows(browser: Browser, tmp_path: Path) -> None:
    scores = {"happy": 0.6, "sad": 0.1, "angry": 0.2}
    texts = ["one two three four five six " * (1 + i % 7 * 5) for i in range(1500)]
    rows = [segment(i * 4.8, i * 4.8 + 4, text, scores) for i, text in enumerate(texts)]
    write_page(timeline(tmp_path / "a.mp4", rows, duration=7200.0), tmp_path / "page.html", media=False)
    browser.open(tmp_path / "page.html")
    assert browser.run("[...byId('zoom').children].map(button => button.textContent)") == [
        *("Whole", "10 min", "1 min", "10 s", "−", "+")
    ]
    browser.click("#zoom button:nth-child(4)")
    assert browser.run("shownSeconds") == 10
    browser.run("seek(segments[1000].start, 1000); 0")
    assert browser.run(IS_INSIDE.format("byId('cursor')", "view", "left", "right"))
    browser.run("list.scrollIntoView(); new Promise(resolve => setTimeout(resolve, 300))")
    assert browser.run(IS_INSIDE.format("rows[1000].row", "list", "top", "bottom"))
    browser.press("0", "0")
    assert browser.run("[shownSeconds, view.scrollLeft]") == [7200, 0]
    assert browser.problems == []


def test_another_file_can_be_chosen_where_the_recording_is_missing(
    browser: Browser, folder: Path, tmp_path: Path
) -> None:
    shutil.copy(folder / "page.html", tmp_path / "page.html")
    browser.open(tmp_path / "page.html")
    browser.wait("!byId('chooser').hidden && player.hidden")
    browser.press("ArrowRight")
    assert browser.run(CURRENT) == 0
    node = browser.call(
        "DOM.querySelector", nodeId=browser.call("DOM.getDocument")["root"]["nodeId"], selector="#file"
    )
    browser.call("DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(folder / "a clip #1.webm")])
    browser.wait("!player.hidden && player.readyState >= 2 && byId('chooser').hidden")
    assert browser.run("player.currentTime") == pytest.approx(0.3, abs=0.01)
    assert not any("Content Security Policy" in problem for problem in browser.problems)


@pytest.mark.parametrize("segments", [[], SEGMENTS[2:]])
def test_clips_without_segments_sound_or_words(browser: Browser, tmp_path: Path, segments: list) -> None:  # type: ignore[type-arg]
    line = timeline(tmp_path / "a.mp4", segments, duration=3.0)
    write_page(line, tmp_path / "page.html", media=False)
    browser.open(tmp_path / "page.html")
    for key in ("ArrowRight", " ", "+", "0"):
        browser.press(key)
    assert browser.problems == []
    assert browser.run("document.getElementById('canvas').width") > 0
    assert browser.run(f"{CURRENT}") == len(segments) - 1


def test_a_recording_without_segments_has_its_waveform(browser: Browser, folder: Path) -> None:
    write_page(timeline(folder / "a clip #1.webm", [], duration=3.0), folder / "empty.html")
    browser.open(folder / "empty.html")
    browser.wait(
        "(canvas => canvas.width > 300 && canvas.getContext('2d').getImageData(0, 0, canvas.width, 60).data"
        ".some(value => value > 0))(document.getElementById('canvas'))"
    )
    assert browser.problems == []
