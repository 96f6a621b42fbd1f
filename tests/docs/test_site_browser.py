"""The built site in a real browser, opened from disk: search works and no page is wider than its window."""

import pytest

from tests.report.headless import CHROMIUM, Browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed (Debian: apt-get install chromium)"),
]

# what lies beyond the right edge of the window, unless it scrolls in a box of its own
OVERFLOWING = """
[...document.querySelectorAll('.md-main *')]
  .filter(e => !e.parentElement.closest('pre, code, svg, .md-sidebar, .md-typeset__scrollwrap, .headerlink'))
  .filter(e => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .filter(e => !e.closest('.md-sidebar, .headerlink'))
  .map(e => e.tagName + '.' + e.getAttribute('class') + ': ' + e.textContent.trim().slice(0, 40))
"""

FOUND = """
new Promise((done, failed) => {
  document.querySelector('[data-md-toggle=search]').click();
  const query = document.querySelector('[data-md-component=search-query]');
  query.focus();
  query.value = 'overstated';
  query.dispatchEvent(new Event('keyup'));
  const timer = setInterval(() => {
    const links = [...document.querySelectorAll('.md-search-result__link')].map(link => link.href);
    if (links.length) { clearInterval(timer); done(links); }
  }, 50);
  setTimeout(() => failed('no results'), 20000);
})
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with Browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_search_works_from_disk(browser, site):
    browser.open(site / "tutorials" / "imagenet.html", width=1280)
    found = browser.evaluate(FOUND)
    assert any(link.startswith((site / "diagnosis.html").as_uri()) for link in found), found
    assert browser.complaints() == []
    assert all(address.startswith(site.as_uri()) for address in browser.requests())


SOME = ("architecture", "attacks", "index", "quickstart", "standards")
"""Pages with long words, tables, code and diagrams."""


@pytest.mark.parametrize(
    ("pages", "width"), [(SOME, 390), *(pytest.param((), width, marks=pytest.mark.slow) for width in (390, 1280))]
)
def test_no_page_is_wider_than_the_window(browser, site, pages, width):
    wide = {}
    for page in [site / f"{name}.html" for name in pages] or sorted(site.rglob("*.html")):
        if page.parent.name != "gallery":  # audit pages; tests/report opens those
            browser.open(page, width=width)
            found = browser.evaluate(OVERFLOWING)
            if found or browser.evaluate("document.documentElement.scrollWidth") > width:
                wide[page.relative_to(site).as_posix()] = found[:4]
    assert wide == {}
