"""The page in a real browser: silent console, no request, nothing wider than a phone, ink on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.report.headless import CHROMIUM, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]

# what lies beyond the right edge of the window, unless it scrolls in a box of its own
OVERFLOWING = """
[...document.body.querySelectorAll('*')]
  .filter(e => !e.parentElement.closest('.scroll, pre, svg'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map(e => e.tagName + '.' + e.getAttribute('class') + ': ' + e.textContent.trim().slice(0, 40))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def path(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "page.html"
    path.write_text(html, "utf-8")
    return path


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_console_is_silent_and_nothing_is_requested(browser: Browser, path: Path, dark: bool) -> None:
    browser.open(path, width=1280, dark=dark)
    assert browser.complaints() == []
    assert browser.requests() == [path.resolve().as_uri()]


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_is_wider_than_the_window(browser: Browser, path: Path, width: int) -> None:
    browser.open(path, width=width)
    assert browser.evaluate("innerWidth") == width
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OVERFLOWING) == []


def test_everything_fits_with_all_details_open(browser: Browser, path: Path) -> None:
    browser.open(path, width=390)
    browser.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert browser.evaluate("document.documentElement.scrollWidth") <= 390
    assert browser.evaluate(OVERFLOWING) == []


def test_text_in_figures_is_readable_on_a_phone(browser: Browser, path: Path) -> None:
    browser.open(path, width=390)
    heights = "[...document.querySelectorAll('.drawing text')].map(t => t.getBoundingClientRect().height)"
    assert min(browser.evaluate(heights)) >= 9


def test_light_and_dark_differ(browser: Browser, path: Path) -> None:
    colours = "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name])"
    browser.open(path, width=1280)
    light = browser.evaluate(colours)
    browser.open(path, width=1280, dark=True)
    assert browser.evaluate(colours) == ["rgb(231, 231, 227)", "rgb(21, 23, 26)"]
    assert light == ["rgb(27, 30, 34)", "rgb(252, 252, 250)"]


def test_paper_is_light_and_shows_what_is_closed_on_screen(browser: Browser, path: Path, tmp_path: Path) -> None:
    browser.open(path, width=760, dark=True)
    browser.call("Emulation.setEmulatedMedia", media="print")
    assert browser.evaluate("getComputedStyle(document.body).color") == "rgb(27, 30, 34)"
    assert browser.evaluate("document.querySelector('.run dl').getBoundingClientRect().height") > 50
    assert browser.evaluate(OVERFLOWING) == []
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_the_checks_of_this_test_see_a_bad_page(browser: Browser, tmp_path: Path) -> None:
    bad = tmp_path / "bad.html"
    bad.write_text(
        "<!doctype html><meta name=viewport content='width=device-width'>"
        "<body><div style='width:900px'>wide</div><img src='http://isthmus.invalid/x.png'>"
        "<script>console.warn('loud')</script>"
    )
    browser.open(bad, width=390)
    assert browser.requests()[1:] == ["http://isthmus.invalid/x.png"]
    assert any("loud" in complaint for complaint in browser.complaints())
    assert browser.evaluate(OVERFLOWING)
