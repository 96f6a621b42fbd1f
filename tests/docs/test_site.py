"""The built site: strict, whole, and fetching nothing from the network."""

import re
from html.parser import HTMLParser

import pytest

import isthmus
from isthmus import attacks, checks, data, metrics, objectives
from isthmus.training import callbacks, loggers
from tests.docs.doc_pages import DOCS, PAGES

LOADS = {
    ("link", "href"): {"stylesheet", "icon", "preconnect", "preload", "dns-prefetch", "modulepreload", "manifest"},
    ("script", "src"): None,
    ("img", "src"): None,
    ("iframe", "src"): None,
    ("source", "src"): None,
    ("object", "data"): None,
}


class Fetched(HTMLParser):
    """Addresses that a browser loads by itself (not those a reader may follow)."""

    def __init__(self):
        super().__init__()
        self.addresses = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for (name, attribute), relations in LOADS.items():
            loads = relations is None or relations & set((given.get("rel") or "").split())
            if tag == name and given.get(attribute) and loads:
                self.addresses.append(given[attribute])


def test_nothing_is_fetched_from_the_network(site):
    pages = list(site.rglob("*.html"))
    assert not (site / "extensions").exists()
    for page in pages:
        parser = Fetched()
        parser.feed(page.read_text("utf-8"))
        assert parser.addresses, page.name
        assert not [address for address in parser.addresses if re.match(r"(https?:)?//", address)], page.name
    for sheet in site.rglob("*.css"):
        assert not re.search(r"""(url\(["']?|@import\s+["'])(https?:)?//""", sheet.read_text("utf-8")), sheet.name


def test_pages_are_whole(site):
    """No markup of docstrings is visible, and no diagram needs a script from the network."""
    for page in PAGES:
        html = (site / page.relative_to(DOCS).with_suffix(".html")).read_text("utf-8")
        assert not re.search(r":(func|class|meth|mod|attr|data):", html), page.name
        assert 'class="mermaid"' not in html, "it would be drawn by a script from a CDN"


PACKAGES = (isthmus, attacks, checks, data, metrics, objectives, callbacks, loggers)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_reference_lists_what_is_public(site, package):
    html = "".join(page.read_text("utf-8") for page in (site / "reference").glob("*.html"))
    listed = set(re.findall(r'id="([\w.]+)"', html))
    public = [getattr(package, name) for name in getattr(package, "__all__", None) or dir(package)]
    paths = {f"{each.__module__}.{each.__qualname__}" for each in public if getattr(each, "__qualname__", None)}
    assert {path for path in paths if path.startswith("isthmus.")} <= listed


def test_llms_txt_lists_every_page(site):
    text = (site / "llms.txt").read_text("utf-8")
    assert text.startswith("# isthmus\n\n> Train ")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Start", "How-to", "Explanation", "Reference", "Project"]
    links = re.findall(r"^- \[[^]]+\]\(([^)]+)\)", text, re.MULTILINE)
    assert sorted(links) == sorted(page.relative_to(DOCS).with_suffix(".html").as_posix() for page in PAGES)


@pytest.mark.parametrize("verdict", ["holds", "overstated", "broken"])
def test_the_gallery_embeds_a_page_with_each_verdict(verdict):
    path = DOCS / "gallery" / f"{verdict}.html"
    html = path.read_text("utf-8")
    assert path.stat().st_size < 1_500_000
    assert re.search(rf'<strong class="word">.*?{verdict.upper()}</strong>', html, re.DOTALL)
    assert not re.search(r"/(work|tmp|home|root)/", html)
    assert f'<iframe class="page" src="gallery/{verdict}.html"' in (DOCS / "gallery.md").read_text("utf-8")


def test_every_screenshot_is_there_in_light_and_dark():
    shown = {image for page in PAGES for image in re.findall(r"assets/([\w-]+)\.png#gh-", page.read_text("utf-8"))}
    assert {image for image in shown if image.endswith("-dark")} == {
        f"{image}-dark" for image in shown if not image.endswith("-dark")
    }
    assert {path.stem for path in (DOCS / "assets").glob("*.png")} == shown
