"""Tables and plots of studies, declared as data and drawn from rows."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from isthmus.core.display import Figure, Gallery, Mark, Picture, Series, Table
from isthmus.core.types import Coordinate, Metric
from isthmus.studies.estimates import Estimate
from isthmus.studies.paper_values import PaperValue, paper_values
from isthmus.studies.quantities import Quantity, estimate
from isthmus.studies.rows import SYMBOLS, Rows, coordinate_text

if TYPE_CHECKING:
    from isthmus.studies.study import StudyConfig, StudyRecord

Names = Mapping[Coordinate, str]
"""Names of coordinates' values on pages, in the order of display."""
Drawn = Figure | Gallery | Table
Range = tuple[float, float]
Place = dict[str, Coordinate | None]


@dataclass(frozen=True, kw_only=True)
class Pivot:
    """A table: quantities as columns, combinations of coordinates as rows.

    Attributes:
        reading: how to read it; ``{data}`` and other names are replaced by the study's options.
        rows: coordinates, each of which is a column; it is empty for a row without that coordinate.
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
        lines: coordinates; each combination of their values is a line.
        panels: coordinates; each combination of their values is a plot.
        level: name of a line -> a quantity that does not depend on ``x``, drawn over its whole range.
        x_log: draw the logarithm of ``x`` to base 10.
        interval: draw 95% intervals.
        seed: draw this seed alone.
        x_label: the name of ``x`` if empty.
        paper: the paper's table whose numbers are drawn as points: a printed metric belongs to the line of its name.
    """

    title: str
    reading: str = "Means over seeds."
    y: Quantity
    x: str | Quantity
    along: str = ""
    lines: tuple[str, ...] = ()
    panels: tuple[str, ...] = ()
    level: Mapping[str, Quantity] = field(default_factory=dict)
    x_label: str = ""
    y_label: str = ""
    x_log: bool = False
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
    at_least: float = 0.0  # least range of both axes on either side


Function = Callable[["StudyRecord", Any], Iterable[Drawn]]
"""The last resort: from the record and the options to tables and plots."""
Block = Pivot | Curves | Pictures | Scatter | Function


def draw(blocks: Iterable[Block], record: StudyRecord, config: StudyConfig, names: Names) -> Iterator[Drawn]:
    """The tables and plots of a study, without those for which nothing was measured."""
    context = _Context(record, record.rows(), config.plain(), names)
    drawers: dict[type, Callable[[Any, _Context], Iterator[Drawn]]] = {
        Pivot: _table,
        Curves: _plots,
        Pictures: _galleries,
        Scatter: _scatters,
    }
    for block in blocks:
        drawer = drawers.get(type(block))
        yield from drawer(block, context) if drawer is not None else block(record, config)  # type: ignore[operator]


@dataclass(frozen=True)
class _Context:
    record: StudyRecord
    rows: Rows
    facts: Mapping[str, Any]
    names: Names

    def text(self, template: str) -> str:
        """A reading with the study's options filled in."""
        return template.format(**self.facts)

    def name(self, key: str, value: Coordinate | None) -> str:
        """The name of a coordinate's value; "" if it is absent."""
        if value is None:
            return ""
        own = None if isinstance(value, bool) else self.names.get(value)
        return coordinate_text(key, value) if own is None else own

    def places(self, quantities: Sequence[Quantity], keys: Sequence[str]) -> list[Place]:
        """Combinations of coordinates at which at least one of some quantities was measured, in order of display."""
        found: dict[tuple[Coordinate | None, ...], None] = {}
        for each in (selection for quantity in quantities for selection in quantity.selections()):
            if not any(key in each.where and not isinstance(each.where[key], tuple) for key in keys):
                rows = self.rows.select(each.name, each.where)
                found |= dict.fromkeys(tuple(row.coords.get(key) for key in keys) for row in rows)
        columns = [list(dict.fromkeys(column)) for column in zip(*found, strict=True)]
        ranks = [{value: rank for rank, value in enumerate(self._ordered(column))} for column in columns]
        ordered = sorted(found, key=lambda place: [rank[value] for rank, value in zip(ranks, place, strict=True)])
        named = (dict(zip(keys, values, strict=True)) for values in ordered)
        return [place for place in named if any(each.at(**place).exists(self.rows) for each in quantities)]

    def title(self, place: Mapping[str, Coordinate | None]) -> str:
        """The name of a combination of coordinates."""
        return _joined(*(self.name(key, value) for key, value in place.items()))

    def _ordered(self, values: list[Coordinate | None]) -> list[Coordinate | None]:
        """Values in the order of their names if all have one, otherwise of measurement; an absent one first."""
        order = {value: rank for rank, value in enumerate(self.names)}
        present = [value for value in values if value is not None]
        if all(value in order for value in present):
            present.sort(key=order.__getitem__)
        return [None, *present]


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))


def _table(block: Pivot, context: _Context) -> Iterator[Table]:
    printed = _printed(block, context)
    lines: list[tuple[str | float | Metric | None, ...]] = []
    for place in context.places(list(block.columns.values()), block.rows):
        found = [estimate(column.at(**place), context.rows) for column in block.columns.values()]
        heads = [context.name(key, value) for key, value in place.items()]
        seeds = max((each.seeds for each in found if each is not None), default=0)
        cells = ["" if each is None else each.metric for each in found]
        lines.append((*heads, *(["ours"] if printed else []), seeds, *cells))
        own = {each.metric: each for each in printed if _same(place, each.coords)}
        if own:
            texts = (str(own[title]) if title in own else "" for title in block.columns)
            lines.append((*heads, next(iter(own.values())).place, "", *texts))
    if lines:
        columns = (*map(_symbol, block.rows), *(["numbers"] if printed else []), "seeds", *block.columns)
        yield Table(block.title, context.text(block.reading), columns, tuple(lines))


def _symbol(coordinate: str) -> str:
    return SYMBOLS.get(coordinate, coordinate.replace("_", " "))


def _same(place: Place, coords: Mapping[str, Coordinate]) -> bool:
    return all(coords.get(key) == value for key, value in place.items())


def _printed(block: Pivot | Curves, context: _Context) -> list[PaperValue]:
    if not block.paper:
        return []
    given = context.facts.get("data", "")
    data = given["name"] if isinstance(given, Mapping) else given
    paper = context.record.study.partition("/")[0].replace("-", "_")
    return [each for each in paper_values(paper, block.paper) if each.coords.get("data", data) == data]


def _plots(block: Curves, context: _Context) -> Iterator[Figure]:
    seed = {} if block.seed is None else {"seed": block.seed}
    y = block.y.at(**seed)
    for panel in context.places([y], block.panels):
        lines = []
        for line in context.places([y.at(**panel)], block.lines):
            own = {**panel, **line}
            x = block.x.at(**own, **seed) if isinstance(block.x, Quantity) else block.x
            name = context.title(line) or block.y_label
            lines.append(_series(name, x, y.at(**own), block, context.rows))
        lines = [line for line in lines if line.x]
        lines += _paper_points(block, panel, [line.name for line in lines], context)
        if lines:
            yield Figure(
                _joined(block.title, context.title(panel)),
                context.text(block.reading),
                block.x_label or _symbol(str(block.x)),
                block.y_label,
                (*lines, *_levels(block, panel, lines, context.rows)),
                block.marks,
                block.x_range,
                block.y_range,
            )


def _levels(block: Curves, panel: Place, lines: Sequence[Series], rows: Rows) -> Iterator[Series]:
    """Lines that do not depend on x, over the range of the others."""
    reached = [x for line in lines for x in line.x]
    for name, quantity in block.level.items():
        found = estimate(quantity.at(**panel), rows)
        if found is not None:
            ends = _ends([found] * 2) if block.interval else {}
            yield Series(name, (min(reached), max(reached)), (found.value,) * 2, group=name, **ends)


def _series(name: str, x: str | Quantity, y: Quantity, block: Curves, rows: Rows) -> Series:
    key = x if isinstance(x, str) else block.along
    found = {place: estimate(y.at(**{key: place}), rows) for place in sorted(y.values(rows, key), key=float)}
    known = {place: each for place, each in found.items() if each is not None}
    if isinstance(x, str):
        across = [math.log10(float(place)) if block.x_log else float(place) for place in known]
    else:
        others = [estimate(x.at(**{key: place}), rows) for place in known]
        across = [math.nan if each is None else each.value for each in others]
    ends = _ends(list(known.values())) if block.interval else {}
    values = tuple(each.value for each in known.values())
    return Series(name, tuple(across), values, style=block.style, group=name, **ends)


def _ends(found: Sequence[Estimate]) -> dict[str, Any]:
    return {"low": tuple(each.low for each in found), "high": tuple(each.high for each in found)}


def _paper_points(block: Curves, panel: Place, lines: Sequence[str], context: _Context) -> Iterator[Series]:
    """The paper's numbers for each line, if it prints any."""
    printed = [each for each in _printed(block, context) if _same(panel, each.coords)]
    for name in lines:
        points = [(float(each.coords[str(block.x)]), each.value) for each in printed if each.metric == name]
        if points:
            x, y = zip(*points, strict=True)
            yield Series(f"{name}, paper", x, y, style="points", group=name)


def _having(key: str, block: Pictures | Scatter, context: _Context) -> Iterator[tuple[str, Any]]:
    """Title and content of each experiment that has some details."""
    for coords, content in context.record.details(key):
        yield _joined(block.title, context.title({panel: coords.get(panel) for panel in block.panels})), content


def _galleries(block: Pictures, context: _Context) -> Iterator[Gallery]:
    for title, content in _having("pictures", block, context):
        rows = tuple(
            (label, tuple(Picture(unpacked(image), caption) for image, caption in pictures))
            for label, pictures in content.items()
        )
        yield Gallery(title, context.text(block.reading), rows)


def _scatters(block: Scatter, context: _Context) -> Iterator[Figure]:
    for title, plots in _having("points", block, context):
        for name, groups in plots.items():
            series = []
            for label, points in groups.items():
                x, y = (tuple(float(value) for value in axis) for axis in zip(*points, strict=True))
                series.append(Series(label, x, y, style="points", group=label))
            side = max(block.at_least, *(abs(value) for line in series for value in (*line.x, *line.y)))
            yield Figure(
                _joined(title, name),
                context.text(block.reading),
                block.x_label,
                block.y_label,
                tuple(series),
                x_range=(-side, side),
                y_range=(-side, side),
            )


def grouped(points: Iterable[Sequence[float]], labels: Iterable[str]) -> dict[str, list[list[float]]]:
    """One plot's content for :class:`Scatter`, in the order of the labels' first points."""
    found: dict[str, list[list[float]]] = {}
    for point, label in zip(points, labels, strict=True):
        found.setdefault(label, []).append(list(point))
    return found


def not_measured(record: StudyRecord, _: StudyConfig) -> Iterator[Table]:
    """The block that lists what was not measured, with the reason; none if everything was."""
    rows = [row for each in record.experiments.values() for row in each.metrics if row.value is None and row.note]
    lines = dict.fromkeys((_described(row), row.note) for row in rows)
    if lines:
        yield Table(
            "Not measured", "Add the missing files, and run the same command again.", ("number", "reason"), tuple(lines)
        )


def _described(row: Metric) -> str:
    """A row's name with its data."""
    where = [str(row.coords[key]) for key in ("data", "corruption") if key in row.coords]
    return ", ".join([row.name.replace("_", " "), *where])


def packed(image: np.ndarray) -> str:
    """A uint8 picture as text for a record; :func:`unpacked` is the inverse."""
    file = io.BytesIO()
    np.lib.format.write_array(file, image, allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode("ascii")


def unpacked(text: str) -> np.ndarray:
    """The picture in a text of :func:`packed`.

    Raises:
        ValueError: the text holds no picture.
    """
    file = io.BytesIO(base64.b64decode(text, validate=True))
    image: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
    return image
