"""Blocks of a section for the template: figures drawn, pictures encoded, tables with footnotes."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from isthmus.core.display import Block, Comparison, Figure, Finding, Gallery, Grid, Picture
from isthmus.core.format import STATUSES, count, digits, listed
from isthmus.core.types import Status
from isthmus.report import figures, legend, tables
from isthmus.report.legend import Entry
from isthmus.report.palette import Looks
from isthmus.report.panels import split
from isthmus.report.tables import Column

MOST_ROWS = 400
"""Figures with more points show no table of them; the results' JSON has them all."""

_LARGE_ENOUGH = 64
"""Smaller pictures are enlarged, each pixel to a square, since viewers and printers would blur them."""


@dataclass(frozen=True)
class Drawing:
    """One panel: its title (the classifier ``group`` if it is about one) and its ``<svg>``."""

    title: str
    group: str
    svg: Markup


@dataclass(frozen=True)
class Points:
    """The numbers behind a figure, to six digits."""

    columns: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class FigureView:
    """A figure: drawings side by side under one legend, and the points behind it."""

    title: str
    reading: str
    legend: list[Entry]
    drawings: list[Drawing]
    layout: str
    points: Points
    kind: str = field(default="figure", init=False)


@dataclass(frozen=True)
class Thumbnail:
    """A picture with its caption."""

    uri: str
    caption: str
    width: int
    height: int
    pixelated: bool


@dataclass(frozen=True)
class GalleryView:
    """Rows of pictures."""

    title: str
    reading: str
    rows: list[tuple[str, list[Thumbnail]]]
    kind: str = field(default="gallery", init=False)


@dataclass(frozen=True)
class TableView:
    """A table with the footnote on its intervals."""

    title: str
    reading: str
    columns: list[Column]
    footnote: str
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Merged:
    """Findings of several classifiers that say the same."""

    title: str
    status: Status
    names: str
    reason: str

    @property
    def word(self) -> str:
        """The status in a word."""
        return STATUSES[self.status]


@dataclass(frozen=True)
class GridView:
    """Tests × classifiers; ``shown`` are the findings that did not pass, ``folded`` the others."""

    title: str
    reading: str
    names: tuple[str, ...]
    rows: list[tuple[str, tuple[Finding | None, ...]]]
    shown: list[Merged]
    folded: list[Merged]
    kind: str = field(default="grid", init=False)


@dataclass(frozen=True)
class ExampleRow:
    """An original image and, for each classifier, the changed image with the difference, or a sentence."""

    original: Thumbnail
    cells: list[tuple[Thumbnail, Thumbnail] | str]


@dataclass(frozen=True)
class ComparisonView:
    """Images × classifiers; further rows are folded."""

    title: str
    reading: str
    names: tuple[str, ...]
    rows: list[ExampleRow]
    key: tuple[str, str, str]
    kind: str = field(default="comparison", init=False)


View = FigureView | GalleryView | TableView | GridView | ComparisonView


def view(block: Block, looks: Looks, name: str) -> View:
    """Prepare one block; ``name`` is unique on the page and begins the ids inside."""
    if isinstance(block, Figure):
        return _figure(block, looks, name)
    if isinstance(block, Gallery):
        rows = [(label, [_thumbnail(picture) for picture in pictures]) for label, pictures in block.rows]
        return GalleryView(block.title, block.reading, rows)
    if isinstance(block, Grid):
        return _grid(block)
    if isinstance(block, Comparison):
        return _comparison(block)
    columns = tables.columns_of(block)
    return TableView(block.title, block.reading, columns, tables.footnote(columns))


def merged(findings: Sequence[tuple[str, str, Finding]]) -> list[Merged]:
    """Merge equal findings of (test, classifier, finding), in order of first appearance.

    Of more than two classifiers, "all five" replaces their names.
    """
    classifiers = {name for _, name, _ in findings}
    groups: dict[tuple[str, Finding], list[str]] = {}
    for test, name, finding in findings:
        groups.setdefault((test, finding), []).append(name)
    return [
        Merged(test, found.status, _together(names, len(classifiers)), found.reason)
        for (test, found), names in groups.items()
    ]


def divided(found: Sequence[Merged]) -> tuple[list[Merged], list[Merged]]:
    """Findings that are neither a pass nor a measurement, and the others."""
    passed = (Status.PASS, Status.MEASURED)
    return [one for one in found if one.status not in passed], [one for one in found if one.status in passed]


_UNBROKEN = re.compile(
    r"(?:\d+% interval )?[−-]?\d[\d.,]*%?(?:–| to )[−-]?\d[\d.,]*\d%?"  # 95% interval 97.6% to 99.7%
    r"|\bn = \d[\d,]*|ε = \d[\d.]*|ℓ[∞12] [\d./]+|\d[\d.,]* (?:points|nats|images|examples)\b"
)


def prose(text: str) -> Markup:
    """A sentence in which no interval or number with its unit is broken across lines."""
    return Markup(_UNBROKEN.sub(lambda found: f'<span class="nb">{found.group()}</span>', str(escape(text))))


def _together(names: Sequence[str], of: int) -> str:
    return f"all {count(of, '', ' ').strip()}" if len(names) == of > 2 else listed(names)


def _grid(block: Grid) -> GridView:
    found = merged(
        [
            (test, name, finding)
            for test, cells in block.rows
            for name, finding in zip(block.columns, cells, strict=True)
            if finding is not None
        ]
    )
    return GridView(block.title, block.reading, block.columns, list(block.rows), *divided(found))


def _comparison(block: Comparison) -> ComparisonView:
    rows = [
        ExampleRow(
            _thumbnail(original),
            [cell if isinstance(cell, str) else (_thumbnail(cell[0]), _thumbnail(cell[1])) for cell in cells],
        )
        for original, cells in block.rows
    ]
    return ComparisonView(block.title, block.reading, block.columns, rows, block.key)


def arranged(views: list[View]) -> list[View]:
    """Pair figures of one drawing; one without a neighbour gets a whole row."""
    result: list[View] = []
    waiting = False
    for one, following in zip_longest(views, views[1:]):
        alone = _is_whole(one) and not waiting and not _is_whole(following)
        waiting = _is_whole(one) and not waiting and not alone
        result.append(replace(one, layout="lone") if alone and isinstance(one, FigureView) else one)
    return result


def _is_whole(view: View | None) -> bool:
    return isinstance(view, FigureView) and view.layout == "whole"


def _figure(figure: Figure, looks: Looks, name: str) -> FigureView:
    panels = split(figure)
    entries = legend.entries(figure, panels, looks)
    drawn = figures.draw(figure, panels, looks, name)
    drawings = [Drawing(p.title, p.group, Markup(svg)) for p, svg in zip(panels, drawn, strict=True)]
    return FigureView(figure.title, figure.reading, entries, drawings, figures.layout(figure, panels), _points(figure))


def _points(figure: Figure) -> Points:
    """The numbers behind a figure as a table, for screen readers and downloads."""
    rows = [
        (
            one.name if one.group in ("", one.name) or one.group in one.name else f"{one.group}, {one.name}",
            *("" if value is None else digits(value) for value in point),
        )
        for one in figure.series
        for point in zip(one.x, one.y, one.low or (None,) * len(one.x), one.high or (None,) * len(one.x), strict=True)
    ]
    if not 0 < len(rows) <= MOST_ROWS:
        return Points()
    columns = ("series", figure.x_label, figure.y_label, "from", "to")
    shown = 5 if any(one.low for one in figure.series) else 3
    return Points(columns[:shown], tuple(row[:shown] for row in rows))


def _thumbnail(picture: Picture) -> Thumbnail:
    image = np.asarray(picture.image)
    image = image[:, :, None] if image.ndim == 2 else image
    times = max(1, _LARGE_ENOUGH // max(image.shape[:2]))
    image = image.repeat(times, axis=0).repeat(times, axis=1)
    height, width = image.shape[:2]
    return Thumbnail(_data_uri(image), picture.caption, width, height, times > 1)


def _data_uri(image: np.ndarray) -> str:
    """A picture as the address of an ``<img>`` without a file.

    Raises:
        ValueError: it is not uint8, height × width × (1 or 3).
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or image.size == 0:
        raise ValueError(f"a picture is uint8, height × width × (1 or 3); got {image.dtype} of shape {image.shape}")
    buffer = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
