"""From matplotlib's SVG to a drawing in a page: themed by CSS, of any width, with unique ids."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from isthmus.report.palette import VARIABLES

_UNWRITABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DROPPED = re.compile(r"<metadata>.*?</metadata>|<style.*?</style>|(?<=>)\s*\n\s*(?=<)", re.DOTALL)
_TAG = re.compile(r"<[^>]*>")
_IN_TAGS = re.compile(
    r' id="[^"]*_\d+"'  # axes_1 and so on, to which nothing refers; the other ids contain a hash
    r"|(?<=\.\d\d)\d+"  # decimals that no screen shows
    r"|\s*(?:font-family|opacity: 1\b)[^;\"]*;?"
)
_ROOT = re.compile(r' (?:width|height|version)="[^"]*"')


CLASS = "class:"
"""Prefix of a matplotlib gid that becomes a CSS class."""


@contextmanager
def drawing(salt: str = "") -> Iterator[None]:
    """Matplotlib's settings for the page, restored afterwards."""
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text: the page's font, selectable, readable by a screen reader
        "svg.hashsalt": salt,  # ids from content and salt: reproducible, and different in every drawing
        "text.parse_math": False,  # a model named "a$b$c" is a name, not a formula
        "path.simplify": False,
    }
    with warnings.catch_warnings(), matplotlib.rc_context(settings):
        # the browser draws the text, so glyphs that matplotlib's font lacks do not matter
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def clean(text: str) -> str:
    """Text without characters that XML cannot hold."""
    return _UNWRITABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def inline(figure: Figure, name: str, label: str, more: str = "") -> str:
    """Draw a figure as an ``<svg>`` element to put inside HTML.

    Args:
        figure: drawn in the sentinel colours of :mod:`isthmus.report.palette`.
        name: unique on the page; the ids inside derive from it.
        label: for screen readers.
        more: elements to put on top.
    """
    buffer = io.StringIO()
    with drawing(name):
        figure.savefig(
            buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")), transparent=True
        )
    text = buffer.getvalue()
    # a <style> would apply to the whole page
    root, end, rest = _DROPPED.sub("", text[text.index("<svg") :]).partition(">")
    attributes = f' role="img" aria-label="{escape(clean(label))}"'
    return (
        _ROOT.sub("", root)
        + attributes
        + end
        + _TAG.sub(_restyled, rest.rstrip().removesuffix("</svg>"))
        + more
        + "</svg>"
    )


def _restyled(tag: re.Match[str]) -> str:
    """A tag in the page's colours and font, without superfluous ids and decimals."""
    text = _IN_TAGS.sub("", " ".join(tag.group().split())).replace(f'id="{CLASS}', 'class="')
    for sentinel, variable in VARIABLES.items():
        text = text.replace(sentinel, variable)
    return text
