"""Labels in a drawing: names at the ends of lines, and reference lines and points, placed where they cover least."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from isthmus.core import scales
from isthmus.core.display import Figure, Mark, Series
from isthmus.core.drawing import Look
from isthmus.report.palette import INK, PAPER
from isthmus.report.panels import Panel, group
from isthmus.report.svg import clean

_BACKGROUND = {"boxstyle": "square,pad=0.1", "facecolor": PAPER, "edgecolor": "none", "alpha": 0.75}
_STEPS = 24  # candidate points along a line between two of its points


_LONGEST, _MOST, _APART, _FARTHEST = 14, 6, 0.07, 0.25
"""Of names at line ends: letters, number, and distance of two and shift of one, as parts of the axis."""


@dataclass(frozen=True)
class End:
    """The name at the end of a line; ``y`` and ``label`` are the heights of the end and of the name on the axis."""

    group: str
    y: float
    label: float


def ends(figure: Figure, panels: Sequence[Panel]) -> list[End]:
    """Names for the ends of the lines of a single drawing, which then needs no legend; none if there is no room."""
    series = [one for one in figure.series if one.x]
    names = {group(one) for one in series}
    lines = all(one.style == "line" and len(one.x) > 1 and not one.overflow for one in series)
    short = all(len(name) <= _LONGEST for name in names)
    if len(panels) > 1 or not (1 < len(names) == len(series) <= _MOST and lines and short):
        return []
    low, high = scales.widened(scales.ranges(scales.zoomed(figure))[1])
    heights = [(one.y[-1] - low) / (high - low) for one in series]
    if len({one.x[-1] for one in series}) > 1 or not np.isfinite(heights).all():
        return []
    found = _apart(heights)
    if max(abs(np.array(found) - heights)) > _FARTHEST:
        return []
    return [End(group(one), y, label) for one, y, label in zip(series, heights, found, strict=True)]


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights that keep their order and the smallest distance, about the mean of the given ones, within the axis."""
    order = np.argsort(heights, kind="stable")
    ranked, steps = np.array(heights)[order], _APART * np.arange(len(heights))
    lower = steps + np.maximum.accumulate(ranked - steps)
    upper = steps + np.minimum.accumulate((ranked - steps)[::-1])[::-1]
    middle = (lower + upper) / 2
    middle -= max(0.0, middle[-1] - 1) + min(0.0, middle[0])
    placed = np.empty(len(heights))
    placed[order] = middle
    return [float(height) for height in placed]


def draw_end(axes: Axes, end: End, look: Look, size: float) -> None:
    """Draw the name of a line beside its end, with its marker, and a thin line between them."""
    options: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False, "color": look.colour}
    axes.plot([0.975, 1.015], [end.y, end.label], linewidth=0.8, **options)
    axes.plot([1.02], [end.label], marker=look.marker, markersize=5, linestyle="none", **options)
    axes.annotate(
        clean(end.group), (1.02, end.label), (6, 0), "axes fraction", "offset points",
        fontsize=size, color=INK, va="center", annotation_clip=False,
    )  # fmt: skip


def place(axes: Axes, marks: Sequence[Mark], series: Sequence[Series], size: float) -> None:
    """Label each mark beside it, at the candidate place that covers the fewest points and no earlier label.

    Call it after the layout is settled: it measures in display coordinates.
    """
    cloud = _cloud(axes, marks, series)
    taken: list[Bbox] = []
    for mark in marks:
        label = axes.annotate(
            textwrap.fill(clean(mark.name), 30),
            (0, 0),
            xytext=(0, 0),
            textcoords="offset points",
            fontsize=size,
            color=INK,
            linespacing=1.1,
            bbox=_BACKGROUND,
        )
        candidates = list(_candidates(axes, mark))
        scores = [_cost(_moved(label, **candidate), axes.bbox, cloud, taken) for candidate in candidates]
        taken.append(_moved(label, **candidates[int(np.argmin(scores))]))


def _candidates(axes: Axes, mark: Mark) -> Iterator[dict[str, Any]]:
    """Places for a label, the most natural first: anchor in data coordinates, offset in points, alignment."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if mark.x is not None and mark.y is not None:
        for dx, ha in ((7, "left"), (-7, "right"), (0, "center")):
            for dy, va in ((5, "bottom"), (-5, "top")):
                yield {"at": (mark.x, mark.y), "offset": (dx, dy if dx else 2 * dy), "ha": ha, "va": va}
    elif mark.y is not None:
        for x, dx, ha in ((right, -3, "right"), (left, 3, "left"), ((left + right) / 2, 0, "center")):
            for dy, va in ((2, "bottom"), (-2, "top")):
                yield {"at": (x, mark.y), "offset": (dx, dy), "ha": ha, "va": va}
    elif mark.x is not None:
        for y, dy, va in ((top, -2, "top"), (bottom, 3, "bottom"), ((bottom + top) / 2, 0, "center")):
            for dx, ha in ((4, "left"), (-4, "right")):
                yield {"at": (mark.x, y), "offset": (dx, dy), "ha": ha, "va": va}


def _moved(label: Annotation, at: tuple[float, float], offset: tuple[float, float], ha: Any, va: Any) -> Bbox:
    label.xy = at
    label.set_position(offset)
    label.set(ha=ha, va=va)
    return label.get_window_extent()


def _cost(box: Bbox, frame: Bbox, cloud: np.ndarray, taken: Sequence[Bbox]) -> float:
    box = box.padded(3)
    outside = max(frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1, 0.0)
    x, y = cloud.T
    covered = int(((x > box.x0) & (x < box.x1) & (y > box.y0) & (y < box.y1)).sum())
    hidden = sum(bool(box.overlaps(other)) for other in taken)
    return float(covered + 100 * hidden + 10 * outside)


def _cloud(axes: Axes, marks: Sequence[Mark], series: Sequence[Series]) -> np.ndarray:
    """Points along everything drawn, in display coordinates."""
    drawn = [np.array([(mark.x, mark.y) for mark in marks if None not in (mark.x, mark.y)], float).reshape(-1, 2)]
    for one in series:
        points = np.column_stack([one.x, one.y]).astype(float)
        if one.style in ("line", "dashed") and len(points) > 1:
            dense = np.linspace(0, len(points) - 1, (len(points) - 1) * _STEPS + 1)
            points = np.column_stack([np.interp(dense, np.arange(len(points)), axis) for axis in points.T])
        elif one.low is not None and one.high is not None:  # drawn as upright strokes
            heights = np.linspace(one.low, one.high, _STEPS)
            points = np.column_stack([np.tile(one.x, _STEPS), heights.ravel()])
        drawn.append(points)
    return np.asarray(axes.transData.transform(np.concatenate(drawn)))
