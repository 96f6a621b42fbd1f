"""Figures, tables and pictures of a page, as plain data. A section of the page is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from isthmus.core.types import Metric, Status


@dataclass(frozen=True)
class Series:
    """One named line, point cloud or bar row of a figure; ``low`` and ``high`` draw an interval.

    Attributes:
        group: ties a series to a model across figures: the same group always gets the same colour.
        counts: number of examples behind each point; points are drawn larger for more.
        overflow: whether the first and the last place hold everything beyond them, as of a histogram; they are marked.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    style: Literal["line", "points", "bars", "dashed"] = "line"
    group: str = ""
    counts: tuple[int, ...] | None = None
    overflow: bool = False


@dataclass(frozen=True)
class Mark:
    """A reference line (only ``x`` or only ``y`` given) or a reference point (both given), with its name."""

    name: str
    x: float | None = None
    y: float | None = None


@dataclass(frozen=True)
class Figure:
    """A plot as plain data. ``reading`` is one line that describes what it shows."""

    title: str
    reading: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    marks: tuple[Mark, ...] = ()
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    identity: bool = False  # draw the line y = x (reliability diagrams)


@dataclass(frozen=True)
class Picture:
    """One image with its caption: uint8, height x width x (1 or 3)."""

    image: np.ndarray
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Rows of pictures, each row with a label."""

    title: str
    reading: str
    rows: tuple[tuple[str, tuple[Picture, ...]], ...]


@dataclass(frozen=True)
class Table:
    """A table; cells are text, numbers or metrics (shown with interval and n). The first column names rows."""

    title: str
    reading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | Metric | None, ...], ...]


@dataclass(frozen=True)
class Finding:
    """The outcome of a test in a sentence."""

    status: Status
    reason: str


@dataclass(frozen=True)
class Grid:
    """Tests and their outcomes: a row for each test, a column for each classifier; None was not run."""

    title: str
    reading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Finding | None, ...]], ...]


@dataclass(frozen=True)
class Comparison:
    """Images compared over classifiers: a row for each image, a column for each classifier.

    ``rows`` pairs the original image with a cell for each classifier: two pictures (the changed image and the
    difference), or a sentence on why there are none. ``key`` names the ends of the difference's colours.
    """

    title: str
    reading: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Picture, tuple[tuple[Picture, Picture] | str, ...]], ...]
    key: tuple[str, str, str] = ("", "", "")


Block = Figure | Gallery | Table | Grid | Comparison


@dataclass(frozen=True)
class Headline:
    """The main number of a check about one classifier, for the scorecard.

    Attributes:
        metric: the number, with n and interval.
        label: its meaning in words: "clean accuracy". Classifiers with the same label are compared.
        word: a word before the number, such as a verdict.
        note: further information about this number, in a few words.
    """

    metric: Metric
    label: str
    word: str = ""
    note: str = ""


@dataclass(frozen=True)
class Section:
    """The page's section about one check, for one or several classifiers."""

    title: str
    question: str
    blocks: tuple[Block, ...] = ()
    columns: Mapping[str, Mapping[str, Metric]] = field(default_factory=dict)
    """Columns of the comparison table: title -> classifier name -> metric."""
    headlines: Mapping[str, Headline] = field(default_factory=dict)
    """Numbers of the scorecard, by classifier name; the first of ``columns`` if empty."""
