"""Axes of a drawing: their ranges, and series made fit to be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes

from isthmus.core.display import Figure, Mark, Series

Range = tuple[float, float]


def ranges(figure: Figure) -> tuple[Range, Range]:
    """Ranges of both axes: as given, else all that any panel draws, intervals and marks included."""
    x = [value for series in figure.series for value in _reach(series)]
    y = [value for series in figure.series for value in (*series.y, *(series.low or ()), *(series.high or ()))]
    y += [0.0 for series in figure.series if series.style == "bars"]
    x += [mark.x for mark in figure.marks if mark.x is not None]
    y += [mark.y for mark in figure.marks if mark.y is not None]
    margin = 0.04 if any(series.style == "points" for series in figure.series) else 0.0
    return figure.x_range or _span(x, margin), figure.y_range or _span(y, margin)


_ZOOM = 0.5
"""Axes of fractions start higher if everything drawn lies above this."""


def is_fraction(figure: Figure) -> bool:
    """Whether the y axis is in percent."""
    return figure.y_range is not None and figure.y_range[1] == 1 and 0 <= figure.y_range[0] < 1


def zoomed(figure: Figure) -> Figure:
    """A figure of fractions near 100% with an axis that starts near the lowest; its label says where.

    Reference lines below the axis, or without a finite place, are left out.
    """
    figure = replace(figure, marks=tuple(mark for mark in figure.marks if _is_placed(mark)))
    lowest = min((v for one in figure.series for v in (*one.y, *(one.low or ())) if np.isfinite(v)), default=0.0)
    if figure.identity or figure.y_range is None or figure.y_range != (0.0, 1.0) or lowest < _ZOOM:
        return figure
    step = 0.05 if lowest >= 0.9 else 0.1
    start = min(round(step * np.floor(lowest / step + 1e-9), 2), 0.95)
    marks = tuple(mark for mark in figure.marks if mark.y is None or mark.y >= start)
    label = f"{figure.y_label} (axis starts at {100 * start:.0f}%)"
    return replace(figure, y_range=(start, 1.0), y_label=label, marks=marks)


def drawable(series: Series, limits: Range) -> Series:
    """The series with gaps for values that are not finite, and intervals clipped to the axes."""
    kept = np.isfinite(np.array(series.x, float))
    y = np.array(series.y, float)
    y[~np.isfinite(y)] = np.nan

    def bound(values: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if values is None:
            return None
        known = np.where(np.isnan(np.array(values, float)), y, np.array(values, float))
        return tuple(np.nan_to_num(known, nan=np.nan, neginf=limits[0], posinf=limits[1])[kept].tolist())

    x = tuple(value for value in series.x if np.isfinite(value))
    return replace(series, x=x, y=tuple(y[kept].tolist()), low=bound(series.low), high=bound(series.high))


def _is_placed(mark: Mark) -> bool:
    return all(np.isfinite(value) for value in (mark.x, mark.y) if value is not None)


def _reach(series: Series) -> Sequence[float]:
    """The extent of a series along x; bars reach half a step beyond their first and last position."""
    x = [value for value in series.x if np.isfinite(value)]
    if series.style != "bars" or not x:
        return x
    half = bar_step(np.array(x, float)) / 2
    return min(x) - half, max(x) + half


def bar_step(x: np.ndarray) -> float:
    """The smallest distance of two positions."""
    steps = np.diff(np.unique(x))
    return float(steps.min()) if len(steps) else 1.0


def _span(values: Sequence[float], margin: float) -> Range:
    finite = [value for value in values if np.isfinite(value)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    room = margin * (high - low) if high > low else 0.5
    return low - room, high + room


def widened(limits: Range) -> Range:
    """Limits with a margin, so that points on the border are drawn completely."""
    room = 0.03 * (limits[1] - limits[0])
    return limits[0] - room, limits[1] + room


def inside(axes: Axes, x: np.ndarray, y: np.ndarray) -> bool:
    """Whether all finite points are within the axes; not if these still follow what is drawn."""
    if axes.get_autoscalex_on() or axes.get_autoscaley_on():
        return False
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    finite = np.isfinite(x) & np.isfinite(y)
    return bool(((x >= left) & (x <= right) & (y >= bottom) & (y <= top))[finite].all())


_ALIKE = 0.006
"""Curves that are nearer than this part of the axis cannot be seen apart."""


def places(panel: Sequence[Series], y_range: Range) -> list[int]:
    """For each series 0, or the distance in line widths by which it is drawn beside an earlier line: 1, −1, 2, …

    A line that coincides with earlier ones at half of its points or more would otherwise hide them.
    """
    found: list[int] = []
    for index, series in enumerate(panel):
        hidden = sum(_coincide(series, earlier, y_range) for earlier in panel[:index])
        found.append((hidden + 1) // 2 * (1 if hidden % 2 else -1))
    return found


def _coincide(one: Series, other: Series, y_range: Range) -> bool:
    lines = all(each.style in ("line", "dashed") and len(each.x) > 1 for each in (one, other))
    if not lines or one.x != other.x:
        return False
    near = np.abs(np.array(one.y, float) - np.array(other.y, float)) < _ALIKE * (y_range[1] - y_range[0])
    return bool(2 * near.sum() >= len(one.x))
