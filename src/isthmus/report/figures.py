"""Figures from plain data, drawn with matplotlib and put into the page by :mod:`isthmus.report.svg`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator
from matplotlib.transforms import offset_copy

from isthmus.core.display import Figure, Mark, Series
from isthmus.report import hover, labels, scales, svg
from isthmus.report.palette import DASHES, GRID, MUTED, NEUTRAL, PAPER, Look, Looks
from isthmus.report.panels import Panel, group
from isthmus.report.scales import Range

FEW_POINTS = 12
"""Lines of up to this many points get a marker at each; longer lines get about eight."""

# About as large as the page shows them, so that text keeps its size: width, height and text size in points.
_SHAPES = {"whole": (440, 295, 12.0), "half": (430, 290, 12.0), "multiples": (205, 195, 11.5)}


def draw(figure: Figure, panels: Sequence[Panel], looks: Looks, name: str) -> list[str]:
    """Draw the panels of a figure with the same axes, as ``<svg>`` elements whose ids start with ``name``."""
    direct = labels.ends(figure, panels)
    figure = scales.zoomed(figure)
    ranges = scales.ranges(figure)
    drawings = []
    for index, whole in enumerate(panels):
        series, background = (
            tuple(scales.drawable(one, ranges[1]) for one in some) for some in (whole.series, whole.background)
        )
        panel = replace(whole, series=series, background=background)
        with svg.drawing():
            canvas, axes = _draw_panel(figure, panel, looks, _SHAPES[layout(figure, panels)], ranges, direct)
            points = hover.targets(axes, figure, [(one, _drawn_x(one, panel.series)) for one in panel.series], looks)
        about = f"{figure.title}: {panel.title}" if panel.title else figure.title
        drawings.append(svg.inline(canvas, f"{name}-{index}", f"{about}. {figure.reading}", points))
    return drawings


def layout(figure: Figure, panels: Sequence[Panel]) -> str:
    """Layout of a figure's drawings: "whole" (one), "half" (a few large ones) or "multiples" (small ones)."""
    return "whole" if len(panels) == 1 else "multiples" if figure.identity or len(panels) > 4 else "half"


def dash(series: Series, siblings: Sequence[Series]) -> tuple[float, ...]:
    """The dash pattern of a line: none for a classifier's first line, another one for each further line."""
    taken: set[int] = set()
    choice = 0
    for sibling in (one for one in siblings if group(one) == group(series)):
        wanted = range(1 if sibling.style == "dashed" else 0, len(DASHES))
        choice = next((index for index in wanted if index not in taken), len(DASHES) - 1)
        taken.add(choice)
        if sibling is series:
            break
    return DASHES[choice]


def _draw_panel(
    figure: Figure,
    panel: Panel,
    looks: Looks,
    shape: tuple[int, int, float],
    ranges: tuple[Range, Range],
    direct: Sequence[labels.End],
) -> tuple[Canvas, Axes]:
    width, height, text = shape
    canvas = Canvas(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
    axes = canvas.add_subplot()
    _furnish(axes, figure, text, ranges)
    for series in panel.background:
        axes.plot(series.x, series.y, color=GRID, linewidth=1, zorder=1.5)
    if figure.identity:
        axes.axline((0, 0), slope=1, color=MUTED, linewidth=1, dashes=(2, 2), zorder=1.8)
    for mark in figure.marks:
        _draw_mark(axes, mark)
    bars = [series for series in panel.series if series.style == "bars"]
    for series, beside in zip(panel.series, scales.places(panel.series, ranges[1]), strict=True):
        look, before = looks.of(group(series)), set(axes.get_children())
        if series.style == "bars":
            _draw_bars(axes, series, look, _drawn_x(series, panel.series), len(bars))
        else:
            dashes = dash(series, panel.series)
            _draw_line(axes, series, look, dashes, _aside(series, panel.series), beside)
        for end in direct:
            if end.group == group(series):
                labels.draw_end(axes, end, look, text - 1)
        if member := looks.member(group(series)):
            for artist in set(axes.get_children()) - before:
                artist.set_gid(svg.CLASS + member)
    canvas.draw_without_rendering()
    canvas.set_layout_engine("none")  # labels and values are placed in this layout, so it must not move again
    if figure.marks:
        labels.place(axes, figure.marks, (*panel.series, *panel.background), text - 1)
    return canvas, axes


def _furnish(axes: Axes, figure: Figure, text: float, ranges: tuple[Range, Range]) -> None:
    """Axes with a grid behind and no frame; the name of the y axis is above it, horizontal."""
    axes.patch.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.spines["bottom"].set(visible=True, color=MUTED, linewidth=0.8)
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=text, labelcolor=MUTED, pad=4)
    axes.set_xlabel(svg.clean(figure.x_label), fontsize=text, color=MUTED)
    axes.set_title(svg.clean(figure.y_label), fontsize=text, color=MUTED, loc="left", pad=6)
    axes.set_xlim(*scales.widened(ranges[0]))
    axes.set_ylim(*scales.widened(ranges[1]))
    fractions = (figure.x_range == (0, 1), scales.is_fraction(figure))
    whole = all(float(value).is_integer() for series in figure.series for value in series.x)
    for axis, fraction, ticks, integer in (
        (axes.xaxis, fractions[0], 11 if whole else 5, whole),
        (axes.yaxis, fractions[1], 5, False),
    ):
        axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10], integer=integer))
        if fraction:
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.3g}%".replace("-", "−")))


def _draw_line(
    axes: Axes, series: Series, look: Look, dashes: tuple[float, ...], aside: float, beside: int = 0
) -> None:
    if series.overflow and len(series.x) > 4:
        _draw_overflow(axes, series, look)
        series = _inner(series)
    x, y = np.array(series.x, float) + aside, np.array(series.y, float)
    line = series.style != "points" and len(x) > 1
    filled = not (line and dashes)
    every = 1 if len(x) <= FEW_POINTS or not line else len(x) // 8
    if series.low is not None and series.high is not None:
        low, high = np.array(series.low, float), np.array(series.high, float)
        if line:
            axes.fill_between(x, low, high, color=look.colour, alpha=0.13, linewidth=0, zorder=2)
        else:
            # an interval may, by its method, not hold its own value
            spread = np.maximum([y - low, high - y], 0)
            width = 0.9 if series.counts else 1.4
            axes.errorbar(x, y, spread, fmt="none", ecolor=look.colour, elinewidth=width, zorder=2.5)
    if series.counts is not None and not line:
        areas = 10 + 80 * np.array(series.counts) / max(*series.counts, 1)
        axes.scatter(
            x,
            y,
            areas,
            color=look.colour,
            alpha=0.85,
            marker=look.marker,
            linewidths=0,
            clip_on=not scales.inside(axes, x, y),
            zorder=3,
        )
        return
    axes.plot(
        x,
        y,
        color=look.colour,
        linestyle=((0, dashes) if dashes else "-") if line else "none",
        linewidth=1.8,
        marker=look.marker,
        markevery=every,
        markersize=_marker_size(series),
        markerfacecolor=look.colour if filled else PAPER,
        markeredgewidth=1.2,
        clip_on=not scales.inside(axes, x, y),
        zorder=3,
        transform=offset_copy(axes.transData, axes.get_figure(root=True), y=2.2 * beside, units="points"),
    )


def _inner(series: Series) -> Series:
    """The series without its first and last place."""
    ends = {name: values and values[1:-1] for name in ("x", "y", "low", "high") if (values := getattr(series, name))}
    return replace(series, **ends)


def _draw_overflow(axes: Axes, series: Series, look: Look) -> None:
    """The outermost bins of a histogram's line, which hold everything beyond: arrows that point there."""
    for place, marker in ((0, "<"), (-1, ">")):
        axes.plot(
            series.x[place],
            series.y[place],
            linestyle="none",
            marker=marker,
            markersize=5.5,
            markerfacecolor=PAPER,
            markeredgecolor=look.colour,
            clip_on=False,
            zorder=3,
        )


def _marker_size(series: Series) -> float:
    """Large for single points, smaller for rows of points and for lines."""
    return 7.5 if len(series.x) == 1 else 5.5 if len(series.x) <= FEW_POINTS else 4.0


def _draw_bars(axes: Axes, series: Series, look: Look, centres: np.ndarray, of: int) -> None:
    """One classifier's bars, beside those of the others at the same place."""
    x, y = np.array(series.x, float), np.array(series.y, float)
    room = 0.86 * scales.bar_step(x)
    faint = [0.25 if series.overflow and i in (0, len(x) - 1) else 0.55 for i in range(len(x))]
    for opacity in sorted(set(faint)):
        chosen = np.array(faint) == opacity
        axes.bar(centres[chosen], y[chosen], room / of * 0.94, facecolor=look.colour, alpha=opacity, zorder=2)
    if series.low is not None and series.high is not None:
        spread = np.maximum([y - np.array(series.low, float), np.array(series.high, float) - y], 0)
        axes.errorbar(centres, y, spread, fmt="none", ecolor=look.colour, elinewidth=1.4, zorder=2.5)


def _drawn_x(series: Series, siblings: Sequence[Series]) -> np.ndarray:
    """Where the points or bars of a series are drawn along x."""
    x = np.array(series.x, float)
    if series.style != "bars":
        return x + _aside(series, siblings)
    bars = [one for one in siblings if one.style == "bars"]
    return x + 0.86 * scales.bar_step(x) * ((bars.index(series) + 0.5) / len(bars) - 0.5)


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


def _draw_mark(axes: Axes, mark: Mark) -> None:
    if mark.x is not None and mark.y is not None:
        axes.plot([mark.x], [mark.y], marker="*", markersize=13, color=NEUTRAL.colour, zorder=4, clip_on=False)
    elif mark.y is not None:
        axes.axhline(mark.y, color=MUTED, linewidth=1, dashes=(4, 2), zorder=1.9)
    elif mark.x is not None:
        axes.axvline(mark.x, color=MUTED, linewidth=1, dashes=(4, 2), zorder=1.9)
