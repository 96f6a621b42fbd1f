"""The series and marks of a figure, drawn into matplotlib axes: for the page and for notebooks alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.transforms import offset_copy
from numpy.typing import NDArray

from isthmus.core import scales
from isthmus.core.display import Figure, Mark, Series

FEW_POINTS = 12
"""Lines of up to this many points get a marker at each; longer lines get about eight."""
DASHES: tuple[tuple[float, ...], ...] = ((), (3.5, 1.8), (1.2, 1.4), (6, 1.6, 1.2, 1.6))


@dataclass(frozen=True)
class Look:
    """A colour and a marker of matplotlib."""

    colour: str
    marker: str


def dash(series: Series, siblings: Sequence[Series]) -> tuple[float, ...]:
    """The dash pattern of a line: none for the first of a classifier's lines, another one for each further line."""
    taken: set[int] = set()
    choice = 0
    for sibling in siblings:
        wanted = range(1 if sibling.style == "dashed" else 0, len(DASHES))
        choice = next((index for index in wanted if index not in taken), len(DASHES) - 1)
        taken.add(choice)
        if sibling is series:
            break
    return DASHES[choice]


def draw_series(
    axes: Axes,
    series: Series,
    siblings: Sequence[Series],
    look: Look,
    dashes: tuple[float, ...] = (),
    beside: int = 0,
    paper: str = "white",
) -> None:
    """Draw a series with its intervals, as bands or strokes.

    Args:
        siblings: all series of the drawing.
        dashes: pattern of a line.
        beside: shift of a line that coincides with others, in line widths; see :func:`isthmus.core.scales.places`.
        paper: colour of the background, which fills the markers of dashed lines.
    """
    if series.style == "bars":
        _draw_bars(axes, series, siblings, look)
        return
    if series.overflow and len(series.x) > 4:
        _draw_overflow(axes, series, look, paper)
        series, siblings = _inner(series), [_inner(one) if one is series else one for one in siblings]
    x, y = drawn_x(series, siblings), np.array(series.y, float)
    line = series.style != "points" and len(x) > 1
    if series.low is not None and series.high is not None:
        if line:
            axes.fill_between(x, series.low, series.high, color=look.colour, alpha=0.13, linewidth=0, zorder=2)
        else:
            _draw_strokes(axes, series, x, look, 0.9 if series.counts else 1.4)
    common: dict[str, Any] = {"marker": look.marker, "label": series.name, "zorder": 3}
    common["clip_on"] = not scales.inside(axes, x, y)
    if series.counts is not None and not line:
        areas = 10 + 80 * np.array(series.counts) / max(*series.counts, 1)
        axes.scatter(x, y, areas, color=look.colour, alpha=0.85, linewidths=0, **common)
        return
    axes.plot(
        x,
        y,
        color=look.colour,
        linestyle=((0, dashes) if dashes else "-") if line else "none",
        linewidth=1.8,
        markevery=1 if len(x) <= FEW_POINTS or not line else len(x) // 8,
        markersize=_marker_size(series),
        markerfacecolor=paper if line and dashes else look.colour,
        markeredgewidth=1.2,
        transform=offset_copy(axes.transData, axes.get_figure(root=True), y=2.2 * beside, units="points"),
        **common,
    )


def _draw_strokes(axes: Axes, series: Series, x: NDArray[np.float64], look: Look, width: float = 1.4) -> None:
    """The intervals of points or bars. An interval may, by its method, not hold its own value."""
    y = np.array(series.y, float)
    reach = np.maximum([y - np.array(series.low, float), np.array(series.high, float) - y], 0)
    axes.errorbar(x, y, reach, fmt="none", ecolor=look.colour, elinewidth=width, zorder=2.5)


def _inner(series: Series) -> Series:
    """The series without its first and last place."""
    ends = {name: values and values[1:-1] for name in ("x", "y", "low", "high") if (values := getattr(series, name))}
    return replace(series, **ends)


def _draw_overflow(axes: Axes, series: Series, look: Look, paper: str) -> None:
    """The outermost bins of a histogram's line, which hold everything beyond: arrows that point there."""
    for place, marker in ((0, "<"), (-1, ">")):
        axes.plot(
            series.x[place],
            series.y[place],
            linestyle="none",
            marker=marker,
            markersize=5.5,
            markerfacecolor=paper,
            markeredgecolor=look.colour,
            clip_on=False,
            zorder=3,
        )


def _marker_size(series: Series) -> float:
    """Large for single points, smaller for rows of points and for lines."""
    return 7.5 if len(series.x) == 1 else 5.5 if len(series.x) <= FEW_POINTS else 4.0


def _draw_bars(axes: Axes, series: Series, siblings: Sequence[Series], look: Look) -> None:
    """One classifier's bars, beside those of the others at the same place."""
    x, y = np.array(series.x, float), np.array(series.y, float)
    centres, of = drawn_x(series, siblings), sum(one.style == "bars" for one in siblings)
    width = 0.86 * scales.bar_step(x) / of * 0.94
    faint = np.array([0.25 if series.overflow and i in (0, len(x) - 1) else 0.55 for i in range(len(x))])
    for opacity in sorted(set(faint.tolist())):
        chosen = faint == opacity
        label = series.name if opacity > 0.5 else None
        axes.bar(centres[chosen], y[chosen], width, facecolor=look.colour, alpha=opacity, zorder=2, label=label)
    if series.low is not None and series.high is not None:
        _draw_strokes(axes, series, centres, look)


def drawn_x(series: Series, siblings: Sequence[Series]) -> NDArray[np.float64]:
    """Where the points or bars of a series are drawn along x."""
    x = np.array(series.x, float)
    if series.style != "bars":
        return x + _aside(series, siblings)
    bars = [one for one in siblings if one.style == "bars"]
    centres: NDArray[np.float64] = x + 0.86 * scales.bar_step(x) * ((bars.index(series) + 0.5) / len(bars) - 0.5)
    return centres


def _aside(series: Series, siblings: Sequence[Series]) -> float:
    """Shift of a row of points along x, so that those of several classifiers are side by side.

    Next to lines they are not shifted, so that the axis is right.
    """
    if any(one.style in ("line", "dashed") for one in siblings):
        return 0.0
    rows = [one for one in siblings if one.style == "points" and len(one.x) > 1]
    if series not in rows or not any(set(one.x) & set(series.x) for one in rows if one is not series):
        return 0.0
    step = min(scales.bar_step(np.array(one.x, float)) for one in rows)
    return 0.7 * step * ((rows.index(series) + 0.5) / len(rows) - 0.5)


def draw_references(axes: Axes, figure: Figure, colour: str) -> None:
    """Draw the line y = x, if the figure has one, and all marks."""
    if figure.identity:
        axes.axline((0, 0), slope=1, color=colour, linewidth=1, dashes=(2, 2), zorder=1.8)
    for mark in figure.marks:
        _draw_mark(axes, mark, colour)


def _draw_mark(axes: Axes, mark: Mark, colour: str) -> None:
    if mark.x is not None and mark.y is not None:
        options: dict[str, Any] = {"marker": "*", "markersize": 13, "linestyle": "none"}
        axes.plot([mark.x], [mark.y], color=colour, zorder=4, clip_on=False, label=mark.name, **options)
    elif mark.y is not None:
        axes.axhline(mark.y, color=colour, linewidth=1, dashes=(4, 2), zorder=1.9, label=mark.name)
    elif mark.x is not None:
        axes.axvline(mark.x, color=colour, linewidth=1, dashes=(4, 2), zorder=1.9, label=mark.name)
