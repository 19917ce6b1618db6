"""The page in Chromium, as users meet it: text, conversation, recording, files, cancel, token, phone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from carat.training.train import TrainedRun
from tests.features.files import tone, write_media
from tests.inference.clips import browser as chromium
from tests.inference.clips.browser import CHROMIUM, Browser
from tests.serve.test_server import FAKES, TOKEN, running

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.slow,
]
CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
SHOWN = "!!document.querySelector('iframe')?.contentDocument?.getElementById('segments')"
VISIBLE = "[...document.querySelectorAll('{0}')].filter(x => x.checkVisibility()).length"


@pytest.fixture(scope="module")
def address(
    text_run: TrainedRun, trained: TrainedRun, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    pytest.importorskip("av")
    with running(
        text_run.folder, trained.folder, folder=tmp_path_factory.mktemp("server"), code=FAKES
    ) as started:
        yield started[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chromium, "FLAGS", [*chromium.FLAGS, *CAMERA])
        with Browser(tmp_path_factory.mktemp("profile")) as opened:
            yield opened


def open_page(browser: Browser, address: str, *, width: int = 1280, dark: bool = False) -> None:
    """Open the page with the token."""
    browser.resize(width, 900)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.call("Emulation.setEmulatedMedia", features=scheme)
    browser.call("Page.navigate", url=f"{address}/")
    browser.wait("document.readyState === 'complete' && location.protocol === 'http:'")
    browser.run(f"sessionStorage.setItem('carat-token', {json.dumps(TOKEN)}); 0")
    browser.problems, browser.requests = [], []
    browser.call("Page.reload")
    browser.wait("document.getElementById('main')?.hidden === false")


def enter(browser: Browser, text: str) -> None:
    browser.run(f"document.getElementById('text').value = {json.dumps(text)}; 0")
    browser.click("#text-form .primary")


def choose(browser: Browser, file: Path, selector: str = "#clip") -> None:
    browser.click("#clip-tab")
    root = browser.call("DOM.getDocument")["root"]["nodeId"]
    node = browser.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    browser.call("DOM.setFileInputFiles", files=[str(file)], nodeId=node)


def test_a_text_gets_bars_and_colored_words(browser: Browser, address: str) -> None:
    open_page(browser, address)
    enter(browser, "so glad\nsuch tears")
    browser.wait("document.querySelectorAll('#text-results article').length === 2")
    assert browser.run("document.querySelectorAll('#text-results .scores li').length") == 6
    assert browser.run("document.querySelectorAll('#text-results .limit').length") == 6
    assert browser.run("document.querySelector('#text-results .word.up').textContent") == "glad"
    assert browser.problems == []
    assert all(url.startswith((address, "data:")) for url in browser.requests)


def test_two_runs_are_compared(browser: Browser, address: str) -> None:
    open_page(browser, address)
    assert browser.run("[...document.querySelectorAll('#compare option')].map(x => x.value)") == ["", "tiny"]
    enter(browser, "so glad")
    browser.wait("document.querySelectorAll('#text-results article').length === 1")


def test_speakers_are_named(browser: Browser, address: str) -> None:
    open_page(browser, address)
    browser.click("#example")
    browser.click("#text-form .primary")
    browser.wait("document.querySelectorAll('#text-results article').length === 3")
    names = browser.run("[...document.querySelectorAll('#text-results h3')].map(x => x.textContent)")
    assert names == ["Ann", "Ben", "Ann"]


def test_markup_in_a_text_is_text(browser: Browser, address: str) -> None:
    open_page(browser, address)
    enter(browser, "<img src=x onerror=alert(1)> so 😀 glad")
    browser.wait("document.querySelectorAll('#text-results article').length === 1")
    assert browser.run("document.querySelectorAll('#text-results img').length") == 0
    assert browser.run("document.querySelector('#text-results .said').textContent") == (
        "<img src=x onerror=alert(1)> so 😀 glad"
    )


def test_a_clip_is_uploaded_and_shown(browser: Browser, address: str, tmp_path: Path) -> None:
    open_page(browser, address)
    choose(browser, write_media(tmp_path / "a clip.mp4", sound=tone(2, 16_000)))
    browser.click("#clip-form .primary")
    browser.wait(SHOWN, 90)
    inside = "document.querySelector('iframe').contentWindow"
    browser.wait(f"{inside}.document.getElementById('media').readyState >= 1")
    assert browser.run(f"{inside}.document.querySelectorAll('#segments > li').length") >= 1
    assert browser.run(VISIBLE.format("#clip-results .actions button")) >= 4
    assert browser.problems == []


def test_a_wrong_file_is_one_line(browser: Browser, address: str, tmp_path: Path) -> None:
    open_page(browser, address)
    (tmp_path / "notes.txt").write_text("hello")
    choose(browser, tmp_path / "notes.txt")
    browser.click("#clip-form .primary")
    browser.wait("document.getElementById('clip-status').textContent.startsWith('Not scored: notes.txt')", 60)


def test_a_recording_is_made_and_scored(browser: Browser, address: str) -> None:
    open_page(browser, address)
    browser.click("#clip-tab")
    browser.click("#record-video")
    browser.wait("document.getElementById('clip-status').textContent.startsWith('Recording … 2')", 30)
    browser.click("#record-stop")
    browser.wait("document.getElementById('clip-status').textContent.startsWith('Recorded')")
    browser.click("#clip-form .primary")
    browser.wait(SHOWN, 90)


def test_the_token_is_asked_for(browser: Browser, address: str) -> None:
    open_page(browser, address)
    browser.run("sessionStorage.clear(); 0")
    browser.call("Page.reload")
    browser.wait("document.getElementById('sign-in')?.hidden === false")
    browser.run(f"document.getElementById('token').value = {json.dumps(TOKEN)}; 0")
    browser.click("#sign-in button")
    browser.wait("document.getElementById('main').hidden === false")


def test_tabs_follow_the_arrow_keys(browser: Browser, address: str) -> None:
    open_page(browser, address)
    browser.run("document.getElementById('text-tab').focus(); 0")
    browser.press("ArrowRight")
    assert browser.run("document.activeElement.id") == "clip-tab"
    assert browser.run("document.getElementById('text-panel').hidden")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_and_controls_have_names(
    browser: Browser, address: str, width: int, dark: bool
) -> None:
    open_page(browser, address, width=width, dark=dark)
    enter(browser, "so glad")
    browser.wait("document.querySelectorAll('#text-results article').length === 1")
    for tab in ("text", "clip"):
        browser.click(f"#{tab}-tab")
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
        nameless = browser.run(
            "[...document.querySelectorAll('button, input, select, textarea')]"
            ".filter(x => x.checkVisibility())"
            ".filter(x => !(x.textContent.trim() || x.labels?.length || x.ariaLabel)).map(x => x.id)"
        )
        assert nameless == []
    browser.run("document.getElementById('text-tab').click(); 0")
    colors = browser.run("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    assert (colors[1] == "rgb(18, 22, 28)") == dark
