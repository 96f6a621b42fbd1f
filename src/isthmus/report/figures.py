"""Figures from plain data, drawn with matplotlib and put into the page by :mod:`isthmus.report.svg`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import FuncFormatter, MaxNLocator

from isthmus.core import drawing, scales
from isthmus.core.display import Figure, Series
from isthmus.core.scales import Range
from isthmus.report import hover, labels, svg
from isthmus.report.palette import GRID, MUTED, PAPER, Looks
from isthmus.report.panels import Panel, group

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
            places = [(one, drawing.drawn_x(one, panel.series)) for one in panel.series]
            points = hover.targets(axes, figure, places, looks)
        about = f"{figure.title}: {panel.title}" if panel.title else figure.title
        drawings.append(svg.inline(canvas, f"{name}-{index}", f"{about}. {figure.reading}", points))
    return drawings


def layout(figure: Figure, panels: Sequence[Panel]) -> str:
    """Layout of a figure's drawings: "whole" (one), "half" (a few large ones) or "multiples" (small ones)."""
    return "whole" if len(panels) == 1 else "multiples" if figure.identity or len(panels) > 4 else "half"


def dash(series: Series, siblings: Sequence[Series]) -> tuple[float, ...]:
    """The dash pattern of a line among those of its classifier."""
    return drawing.dash(series, [one for one in siblings if group(one) == group(series)])


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
    drawing.draw_references(axes, figure, MUTED)
    for series, beside in zip(panel.series, scales.places(panel.series, ranges[1]), strict=True):
        look, before = looks.of(group(series)), set(axes.get_children())
        drawing.draw_series(axes, series, panel.series, look, dash(series, panel.series), beside, PAPER)
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
