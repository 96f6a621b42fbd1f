"""The page in a real browser: silent console, no request, nothing wider than a phone, ink on paper."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from isthmus.report import page, sections
from isthmus.report.loading import load_all
from tests.report import report_standins, standin_checks, verdict_standins
from tests.report.headless import CHROMIUM, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]

# what lies beyond the right edge of the window, unless it scrolls in a box of its own
OVERFLOWING = """
[...document.body.querySelectorAll('*')]
  .filter(e => !e.parentElement.closest('.scroll, pre, svg, nav'))
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


MOST_WORDS, MOST_ROWS, MOST_SCREENS, MOST_PHONE_SCREENS, MOST_PAGES = 1500, 50, 8, 12, 12
SIZE = """({
  words: document.body.innerText.split(/\\s+/).filter(word => /[\\p{L}\\p{N}]/u.test(word)).length,
  rows: [...document.querySelectorAll('tr')].filter(row => row.checkVisibility() && row.offsetHeight).length,
  screens: document.documentElement.scrollHeight / innerHeight,
})"""


@pytest.fixture(scope="module")
def audited(runs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of five classifiers with every verdict, and adversarial examples."""
    found = {
        "deterministic": verdict_standins.diagnosis("overstated", 92, 51, failed=("steps", "restarts")),
        "vib-rho4": verdict_standins.diagnosis("broken", 88, 3, failed=("steps",)),
        "vib-rho0": verdict_standins.diagnosis("undecided", 58, 58),
        "ceb-rho4": verdict_standins.diagnosis("holds", 60, 54, claimed=True),
        "ceb-rho0": verdict_standins.diagnosis("holds", 54, 54),
    }
    images = report_standins.digits(24)
    models = [
        replace(
            model,
            results={
                **model.results,
                "diagnosis": found[model.name],
                "robustness": verdict_standins.robustness(
                    images, tuple(range(number, 24, 2)), wrong=(23 * (number == 0),)
                ),
            },
        )
        for number, model in enumerate(load_all(runs))
    ]
    path = tmp_path_factory.mktemp("audited") / "page.html"
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(standin_checks.SECTIONS, "robustness")
        patch.setattr(sections, "find", standin_checks.find)
        path.write_text(page.render(models), "utf-8")
    return path


def test_a_page_of_five_classifiers_is_short(browser: Browser, audited: Path, tmp_path: Path) -> None:
    browser.open(audited, width=1280, height=800)
    size = browser.evaluate(SIZE)
    assert size["words"] <= MOST_WORDS
    assert size["rows"] <= MOST_ROWS
    assert size["screens"] <= MOST_SCREENS
    browser.open(audited, width=390, height=844)
    assert browser.evaluate(SIZE)["screens"] <= MOST_PHONE_SCREENS
    browser.call("Emulation.setEmulatedMedia", media="print")
    browser.pdf(tmp_path / "page.pdf")
    assert 1 <= len(re.findall(rb"/Type\s*/Page[^s]", (tmp_path / "page.pdf").read_bytes())) <= MOST_PAGES


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_verdicts_and_examples_fit_the_window(browser: Browser, audited: Path, width: int) -> None:
    browser.open(audited, width=width)
    assert browser.complaints() == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate(OVERFLOWING) == []
    words = "[...document.querySelectorAll('.word')].map(word => word.innerText.trim())"
    assert browser.evaluate(words) == ["OVERSTATED", "BROKEN", "UNDECIDED", "HOLDS", "HOLDS"]
    last = "document.querySelector('.verdict:last-of-type').getBoundingClientRect().bottom"
    assert browser.evaluate(last) <= 900, "the verdicts are on the first screen"


def test_no_interval_is_broken_across_lines(browser: Browser, audited: Path) -> None:
    browser.open(audited, width=390)
    lines = (
        "[...document.querySelectorAll('.nb')].filter(e => e.checkVisibility() && e.getClientRects().length > 1).length"
    )
    assert browser.evaluate("document.querySelectorAll('.nb').length") > 10
    assert browser.evaluate(lines) == 0


def test_an_example_is_enlarged_without_the_script(browser: Browser, audited: Path) -> None:
    browser.open(audited, width=1280)
    width = "document.querySelector('.zoom img').getBoundingClientRect().width"
    assert 120 <= browser.evaluate(width) <= 170
    browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
    browser.evaluate("document.querySelector('.zoom').focus()")
    assert browser.evaluate(width) > 500


def test_a_second_click_or_escape_closes_an_enlarged_example(browser: Browser, audited: Path) -> None:
    browser.open(audited, width=1280)
    browser.call("Emulation.setFocusEmulationEnabled", enabled=True)
    width = "document.querySelector('.zoom img').getBoundingClientRect().width"
    browser.evaluate("window.zoom = document.querySelector('.zoom'); zoom.focus()")
    assert browser.evaluate(width) > 500
    browser.evaluate("zoom.dispatchEvent(new MouseEvent('mousedown', {bubbles: true, cancelable: true}))")
    assert browser.evaluate(width) <= 170
    browser.evaluate("zoom.focus()")
    browser.evaluate("zoom.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))")
    assert browser.evaluate(width) <= 170


def test_two_rows_of_examples_are_open_and_the_others_folded(browser: Browser, audited: Path) -> None:
    browser.open(audited, width=1280)
    rows = "[...document.querySelectorAll('.images:not(.head)')].filter(e => e.checkVisibility()).length"
    assert browser.evaluate(rows) == 2
    browser.evaluate("document.querySelector('figure.examples details').open = true")
    assert browser.evaluate(rows) == 24
    columns = "[...document.querySelectorAll('.images:not(.head)')].map(e => e.children.length)"
    assert set(browser.evaluate(columns)) == {6}
    assert browser.evaluate("document.querySelector('.examples').innerText").count("no adversarial example found") > 20


def test_values_are_read_under_the_pointer_and_the_contents_stay_in_view(browser: Browser, audited: Path) -> None:
    browser.open(audited, width=1280)
    under = """(() => {
      const point = [...document.querySelectorAll('.hover circle')].find(e => e.checkVisibility());
      point.scrollIntoView({block: 'center'});
      const box = point.getBoundingClientRect();
      const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
      return top.querySelector('title').textContent;
    })()"""
    assert re.match(r".+: .+ at .+", browser.evaluate(under))
    assert browser.evaluate("scrollY") > 0
    assert abs(browser.evaluate("document.querySelector('nav').getBoundingClientRect().top")) < 1


def test_classifiers_can_be_hidden_and_tables_sorted(browser: Browser, audited: Path) -> None:
    browser.open(audited, width=1280)
    shown = "[...document.querySelectorAll('.m1')].filter(e => e.getBoundingClientRect().width).length"
    assert browser.evaluate(shown) > 10
    browser.evaluate("document.querySelector('[data-model=\"1\"]').click()")
    assert browser.evaluate(shown) == 0
    names = "[...document.querySelectorAll('table.numbers tbody th')].map(e => e.innerText.trim())"
    browser.evaluate("document.querySelector('details.all').open = true")
    accuracies = "[...document.querySelectorAll('table.numbers tbody tr')].map(e => parseFloat(e.cells[3].textContent))"
    browser.evaluate("document.querySelectorAll('table.numbers thead tr:last-child th')[3].click()")
    first = browser.evaluate(accuracies)
    assert first == sorted(first)
    browser.evaluate("document.querySelectorAll('table.numbers thead tr:last-child th')[3].click()")
    assert browser.evaluate(accuracies) == first[::-1]
    assert len(browser.evaluate(names)) == 5


def test_the_numbers_of_a_figure_can_be_downloaded(browser: Browser, audited: Path) -> None:
    browser.open(audited, width=1280)
    browser.evaluate(
        "window.saved = []; URL.createObjectURL = blob => (blob.text().then(t => saved.push(t)), 'blob:x')"
    )
    browser.evaluate("HTMLAnchorElement.prototype.click = function () { saved.push(this.download) }")
    browser.evaluate("document.querySelectorAll('.downloads button').forEach((b, i) => i < 2 && b.click())")
    saved = browser.evaluate("new Promise(done => setTimeout(() => done(window.saved), 200))")
    table = json.loads(next(text for text in saved if text.startswith("{")))
    assert {"title", "columns", "rows"} == set(table)
    assert all(isinstance(value, float | int) for row in table["rows"] for value in row[1:])
    assert any(name.endswith(".csv") for name in saved)


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
