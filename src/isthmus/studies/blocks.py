"""Tables and plots of studies, declared as data and drawn from rows."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from isthmus.core.types import Coordinate, Figure, Gallery, Mark, Metric, Picture, Series, Table
from isthmus.studies.estimates import Estimate
from isthmus.studies.paper_values import PaperValue, paper_values
from isthmus.studies.quantities import Quantity, estimate
from isthmus.studies.rows import Rows

if TYPE_CHECKING:
    from isthmus.studies.study import StudyConfig, StudyRecord

Names = Mapping[Coordinate, str]
"""What pages call the values of coordinates; values are shown in this order."""
Drawn = Figure | Gallery | Table
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Pivot:
    """A table: quantities as columns, combinations of coordinates as rows.

    Attributes:
        reading: how to read it; ``{data}`` and other names are those of the study's options.
        rows: coordinates, each of which is a column with its name.
        columns: title -> quantity.
        paper: the paper's table (in ``paper_values.yaml``) that is shown beside ours. A printed metric goes into the
            column with its name; a coordinate ``data`` there must be the study's data.
    """

    title: str
    reading: str
    rows: tuple[str, ...]
    columns: Mapping[str, Quantity]
    paper: str = ""


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Plots of a quantity over a coordinate, as means over seeds, or of one seed.

    Attributes:
        y: the quantity.
        x: a coordinate, or another quantity; then ``along`` is the coordinate along which both are drawn.
        lines: coordinates, of whose values each combination is a line.
        panels: coordinates, of whose values each combination is a plot of its own.
        interval: draw 95% intervals.
        seed: draw this seed alone.
        paper: the paper's table whose numbers are drawn as points: a printed metric belongs to the line of its name.
    """

    title: str
    reading: str
    y: Quantity
    x: str | Quantity
    along: str = ""
    lines: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    x_label: str = ""
    y_label: str = ""
    interval: bool = False
    seed: int | None = None
    style: Literal["line", "points"] = "line"
    marks: tuple[Mark, ...] = ()
    x_range: Range | None = None
    y_range: Range | None = None
    paper: str = ""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """A gallery for each experiment whose ``details["pictures"]`` has rows: {label: [[packed image, caption], …]}."""

    title: str
    reading: str
    panels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scatter:
    """Points of each experiment, one plot for each of ``details["points"]``: {title: {label: [[x, y], …]}}."""

    title: str
    reading: str
    panels: tuple[str, ...] = ()
    x_label: str
    y_label: str
    at_least: float = 0.0  # both axes reach so far either way


Function = Callable[["StudyRecord", Any], Iterable[Drawn]]
"""The last resort: from the record and the options to what is drawn."""
Block = Pivot | Curves | Pictures | Scatter | Function


def draw(blocks: Iterable[Block], record: StudyRecord, config: StudyConfig, names: Names) -> Iterator[Drawn]:
    """The tables and plots of a study; those of which nothing was measured are left out."""
    rows, facts = record.rows(), config.plain()
    context = _Context(record, rows, facts, names)
    for block in blocks:
        if isinstance(block, Pivot):
            yield from _table(block, context)
        elif isinstance(block, Curves):
            yield from _plots(block, context)
        elif isinstance(block, Pictures):
            yield from _galleries(block, context)
        elif isinstance(block, Scatter):
            yield from _scatters(block, context)
        else:
            yield from block(record, config)


@dataclass(frozen=True)
class _Context:
    record: StudyRecord
    rows: Rows
    facts: Mapping[str, Any]
    names: Names

    def text(self, template: str) -> str:
        """A reading with the study's options filled in."""
        return template.format(**self.facts)

    def name(self, key: str, value: Coordinate) -> str:
        """What a page calls a coordinate's value."""
        own = self.names.get(value)
        if own is not None and not isinstance(value, bool):
            return own
        number = f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
        return f"{key.replace('_', ' ')} {number}"

    def places(self, quantities: Sequence[Quantity], keys: Sequence[str]) -> list[dict[str, Coordinate]]:
        """Combinations of coordinates at which at least one of some quantities was measured, in order of display."""
        every = [
            list(dict.fromkeys(value for each in quantities for value in each.values(self.rows, key))) for key in keys
        ]
        for values in every:
            order = {value: number for number, value in enumerate(self.names)}
            if all(value in order for value in values):
                values.sort(key=order.__getitem__)
        found = (dict(zip(keys, values, strict=True)) for values in product(*every))
        return [place for place in found if any(each.at(**place).exists(self.rows) for each in quantities)]


def _table(block: Pivot, context: _Context) -> Iterator[Table]:
    printed = _printed(block, context)
    lines: list[tuple[str | float | Metric | None, ...]] = []
    for place in context.places(list(block.columns.values()), block.rows):
        found = [estimate(column.at(**place), context.rows) for column in block.columns.values()]
        heads = [context.name(key, value) for key, value in place.items()]
        seeds = max((each.seeds for each in found if each is not None), default=0)
        lines.append((*heads, *(["ours"] if printed else []), seeds, *map(_cell, found)))
        own = {each.metric: each for each in printed if place.items() <= each.coords.items()}
        if own:
            cells = (str(own[title]) if title in own else "" for title in block.columns)
            lines.append((*heads, next(iter(own.values())).place, "", *cells))
    if lines:
        heads = [key.replace("_", " ") for key in block.rows]
        columns = (*heads, *(["numbers"] if printed else []), "seeds", *block.columns)
        yield Table(block.title, context.text(block.reading), columns, tuple(lines))


def _printed(block: Pivot | Curves, context: _Context) -> list[PaperValue]:
    if not block.paper:
        return []
    given = context.facts.get("data", "")
    data = given["name"] if isinstance(given, Mapping) else given
    paper = context.record.study.partition("/")[0].replace("-", "_")
    return [each for each in paper_values(paper, block.paper) if each.coords.get("data", data) == data]


def _cell(found: Estimate | None) -> Metric | str:
    return "" if found is None else found.metric


def _plots(block: Curves, context: _Context) -> Iterator[Figure]:
    seed = {} if block.seed is None else {"seed": block.seed}
    y = block.y.at(**seed)
    for panel in context.places([y], block.panels):
        series = []
        for line in context.places([y.at(**panel)], block.lines):
            own = {**panel, **line}
            name = ", ".join(context.name(key, value) for key, value in line.items()) or block.y_label
            x = block.x.at(**own, **seed) if isinstance(block.x, Quantity) else block.x
            series.append(_series(name, x, y.at(**own), block, context.rows))
        series += _paper_points(block, panel, [each.name for each in series if each.x], context)
        title = ", ".join([block.title, *(context.name(key, value) for key, value in panel.items())])
        kept = tuple(each for each in series if each.x)
        if kept:
            yield Figure(
                title,
                context.text(block.reading),
                block.x_label,
                block.y_label,
                kept,
                block.marks,
                block.x_range,
                block.y_range,
            )


def _series(name: str, x: str | Quantity, y: Quantity, block: Curves, rows: Rows) -> Series:
    key = x if isinstance(x, str) else block.along
    places = y.values(rows, key)
    found = [(place, estimate(y.at(**{key: place}), rows)) for place in sorted(places, key=float)]
    known = [(place, each) for place, each in found if each is not None]
    if isinstance(x, str):
        across = [float(place) for place, _ in known]
    else:
        others = [estimate(x.at(**{key: place}), rows) for place, _ in known]
        across = [float("nan") if each is None else each.value for each in others]
    ends: dict[str, Any] = {}
    if block.interval:
        ends = {"low": tuple(each.low for _, each in known), "high": tuple(each.high for _, each in known)}
    values = tuple(each.value for _, each in known)
    return Series(name, tuple(across), values, style=block.style, group=name, **ends)


def _paper_points(
    block: Curves, panel: Mapping[str, Coordinate], lines: Sequence[str], context: _Context
) -> Iterator[Series]:
    """What the paper prints beside each line, if anything."""
    printed = [each for each in _printed(block, context) if panel.items() <= each.coords.items()]
    for name in lines:
        points = [(float(each.coords[str(block.x)]), each.value) for each in printed if each.metric == name]
        if points:
            x, y = zip(*points, strict=True)
            yield Series(f"{name}, paper", x, y, style="points", group=name)


def _having(key: str, panels: Sequence[str], context: _Context) -> Iterator[tuple[str, Any]]:
    """Title and content of each experiment that has some details."""
    for each in context.record.experiments.values():
        if key in each.details and not each.collapsed:
            coords = each.metrics[0].coords
            yield ", ".join(context.name(panel, coords[panel]) for panel in panels), each.details[key]


def _galleries(block: Pictures, context: _Context) -> Iterator[Gallery]:
    for title, content in _having("pictures", block.panels, context):
        rows = tuple(
            (label, tuple(Picture(unpacked(image), caption) for image, caption in pictures))
            for label, pictures in content.items()
        )
        yield Gallery(", ".join(filter(None, (block.title, title))), context.text(block.reading), rows)


def _scatters(block: Scatter, context: _Context) -> Iterator[Figure]:
    for title, plots in _having("points", block.panels, context):
        for name, groups in plots.items():
            series = []
            for label, points in groups.items():
                x, y = (tuple(float(value) for value in axis) for axis in zip(*points, strict=True))
                series.append(Series(label, x, y, style="points", group=label))
            side = max(
                block.at_least, *(abs(value) for points in groups.values() for point in points for value in point)
            )
            yield Figure(
                ", ".join(filter(None, (block.title, title, name))),
                context.text(block.reading),
                block.x_label,
                block.y_label,
                tuple(series),
                x_range=(-side, side),
                y_range=(-side, side),
            )


def packed(image: np.ndarray) -> str:
    """A picture's bytes, uint8, as text that a record can hold; :func:`unpacked` gives it back."""
    file = io.BytesIO()
    np.lib.format.write_array(file, image, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """The picture that :func:`packed` made a text of.

    Raises:
        ValueError: the text is not that of a picture.
    """
    file = io.BytesIO(base64.b64decode(text, validate=True))
    image: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return image
