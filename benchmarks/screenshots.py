"""Screenshots of an audit page for README and documentation, in light and dark.

    python -m benchmarks.screenshots runs/demo/page.html [--gallery docs/gallery] [--out docs/assets]

``demo.png`` and ``demo-dark.png`` are the head of the page. ``page-*.png`` are parts of it and of the gallery's pages,
with the numbered marks that docs/how-to-read-the-page.md explains. Needs chromium.
"""

from __future__ import annotations

import argparse
import base64
import io
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from tests.report.headless import Browser

SCALE = 1.5
"""Pixels of a screenshot for each CSS pixel."""

MARK = """
((selector, number) => {
  const element = document.querySelector(selector);
  if (!element) return false;
  const box = element.getBoundingClientRect(), mark = document.createElement('span'), above = element.closest('.bar');
  const left = above ? box.left + box.width / 2 - 11 : box.left - 28, top = above ? box.top - 30 : box.top - 1;
  mark.textContent = number;
  Object.assign(mark.style, {
    position: 'absolute', left: `${left + scrollX}px`, top: `${top + scrollY}px`, width: '22px', height: '22px',
    borderRadius: '50%', background: '#0d7f73', color: '#fff', zIndex: 9, textAlign: 'center',
    font: '700 13px/22px system-ui, sans-serif', boxShadow: '0 0 0 2px #fff',
  });
  document.body.append(mark);
  return true;
})
"""
"""Adds a number at the left of an element, or above it in a bar."""

ROOM = "document.querySelector('main').style.paddingLeft = '44px'"


@dataclass(frozen=True)
class Shot:
    """A part of a page, with numbered marks.

    Attributes:
        name: of the file, without its ending.
        first, last: CSS selectors of the elements at the top and at the bottom of the part.
        marks: CSS selectors of the elements that get the numbers 1, 2, … at their left.
        width: of the window, in CSS pixels.
        gallery: name of the gallery's page; empty for the page of several classifiers.
    """

    name: str
    first: str
    last: str
    marks: tuple[str, ...] = ()
    width: int = 1100
    gallery: str = ""


SHOTS = (
    Shot("demo", "#top", "nav"),
    Shot(
        "page-verdict",
        ".banner",
        ".banner",
        (".word", ".numbers", ".note", ".bar .interval", ".bar .reported", ".cite"),
        gallery="overstated",
    ),
    Shot(
        "page-comparison", "#top", "nav", (".verdict:not(.axis) .word", ".banner .lead", ".cite", "nav a", ".toggles")
    ),
    Shot(
        "page-scorecard",
        "#scorecard",
        "#scorecard",
        ("#scorecard td .answer", "#scorecard .badge.pass", "#scorecard .footnote", "#scorecard summary"),
    ),
    Shot(
        "page-evidence",
        "#check-diagnosis figure.grid",
        "#check-diagnosis figure.grid",
        ("table.grid tbody th", "table.grid tbody .mark.fail", ".evidence .details"),
        gallery="broken",
    ),
    Shot(
        "page-examples",
        "figure.examples h3",
        ".viewer",
        (".viewer .images:not(.head) .image", ".viewer .image.m0 img", ".viewer .image.m0 img.difference"),
    ),
    Shot("page-phone", "#top", "nav", width=390),
)


def draw(browser: Browser, page: Path, shot: Shot, dark: bool) -> Image.Image:
    """A screenshot with at most 256 colours, which makes the file a third as large.

    Raises:
        ValueError: the page lacks an element of the shot.
    """
    browser.open(page, shot.width, dark=dark)
    mobile = shot.width < 600
    browser.call(
        "Emulation.setDeviceMetricsOverride", width=shot.width, height=900, deviceScaleFactor=SCALE, mobile=mobile
    )
    if shot.marks:
        browser.evaluate(ROOM)
    for number, selector in enumerate(shot.marks, 1):
        if not browser.evaluate(f"{MARK}({selector!r}, {number})"):
            raise ValueError(f"{page} has no element {selector!r}, which the screenshot {shot.name} marks.")
    top, bottom = (
        browser.evaluate(f"document.querySelector({selector!r})?.getBoundingClientRect().{edge} + scrollY")
        for selector, edge in ((shot.first, "top"), (shot.last, "bottom"))
    )
    if top is None or bottom is None:
        raise ValueError(f"{page} has no element {shot.first!r} or {shot.last!r}.")
    clip = {"x": 0, "y": max(top - 12, 0), "width": shot.width, "height": bottom - top + 24, "scale": 1}
    data = browser.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)["data"]
    image = Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")
    return image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("page", type=Path, help="page of several classifiers, such as the demo's")
    parser.add_argument("--gallery", type=Path, default=Path("docs/gallery"), help="folder of the gallery's pages")
    parser.add_argument("--out", type=Path, default=Path("docs/assets"), help="folder for the screenshots")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as profile, Browser(Path(profile)) as browser:
        for shot in SHOTS:
            page = given.gallery / f"{shot.gallery}.html" if shot.gallery else given.page
            for ending, dark in (("", False), ("-dark", True)):
                path = given.out / f"{shot.name}{ending}.png"
                draw(browser, page, shot, dark).save(path, optimize=True)
                print(f"{path} ({path.stat().st_size / 1e3:.0f} kB)", flush=True)


if __name__ == "__main__":
    main()
