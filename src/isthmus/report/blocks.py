"""Blocks of a section for the template: figures drawn, pictures encoded, tables with footnotes."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, field, replace
from itertools import zip_longest

import numpy as np
from markupsafe import Markup
from PIL import Image

from isthmus.core.display import Block, Figure, Gallery, Picture
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
class FigureView:
    """A figure: drawings side by side under one legend, and the points behind it."""

    title: str
    reading: str
    legend: list[Entry]
    drawings: list[Drawing]
    layout: str
    points: list[Column]
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


View = FigureView | GalleryView | TableView


def view(block: Block, looks: Looks, name: str) -> View:
    """Prepare one block; ``name`` is unique on the page and begins the ids inside."""
    if isinstance(block, Figure):
        return _figure(block, looks, name)
    if isinstance(block, Gallery):
        rows = [(label, [_thumbnail(picture) for picture in pictures]) for label, pictures in block.rows]
        return GalleryView(block.title, block.reading, rows)
    columns = tables.columns_of(block)
    return TableView(block.title, block.reading, columns, tables.footnote(columns))


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


def _points(figure: Figure) -> list[Column]:
    """The numbers behind a figure as a table, for screen readers and citation."""
    rows = [
        (
            one.name if one.group in ("", one.name) or one.group in one.name else f"{one.group}, {one.name}",
            *point,
        )
        for one in figure.series
        for point in zip(one.x, one.y, one.low or (None,) * len(one.x), one.high or (None,) * len(one.x), strict=True)
    ]
    if not 0 < len(rows) <= MOST_ROWS:
        return []
    titles = ("series", figure.x_label, figure.y_label, "from", "to")
    columns = [tables.column(title, [row[index] for row in rows]) for index, title in enumerate(titles)]
    return columns if any(one.low for one in figure.series) else columns[:3]


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
