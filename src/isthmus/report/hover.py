"""Values to read under the pointer, without a script: an invisible disc with a title at each point of a drawing."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
from matplotlib.axes import Axes

from isthmus.core.display import Figure, Series
from isthmus.core.format import digits, number, percent
from isthmus.core.scales import is_fraction
from isthmus.report.palette import Looks
from isthmus.report.panels import group
from isthmus.report.svg import clean

_MOST = 20
"""Discs of a series; of longer ones, every second or third point has one."""


def targets(axes: Axes, figure: Figure, drawn: Sequence[tuple[Series, np.ndarray]], looks: Looks) -> str:
    """An SVG group of discs with titles. Call it after the layout is settled.

    Args:
        drawn: each series with its positions along x, as they are drawn.
    """
    height = axes.figure.bbox.height
    discs = []
    for series, places in drawn:
        at = axes.transData.transform(np.column_stack([places, np.array(series.y, float)]))
        for index in range(0, len(places), max(1, -(-len(places) // _MOST))):
            x, y = at[index]
            if np.isfinite([x, y]).all():
                name = looks.member(group(series))
                title = escape(clean(f"{series.name}: {_value(figure, series, index)}"))
                discs.append(
                    f'<circle class="{name}" cx="{x:.0f}" cy="{height - y:.0f}" r="6"><title>{title}</title></circle>'
                )
    return f'<g class="hover">{"".join(discs)}</g>'


def _value(figure: Figure, series: Series, index: int) -> str:
    """ "84.9% (80.8% to 88.2%) at 0.075"."""
    text = percent if is_fraction(figure) else number
    value = text(series.y[index])
    if series.low and series.high and np.isfinite([series.low[index], series.high[index]]).all():
        value += f" ({text(series.low[index])} to {text(series.high[index])})"
    n = f", n = {series.counts[index]:,}" if series.counts is not None else ""
    at = percent(series.x[index]) if figure.x_range == (0, 1) else digits(series.x[index], 4)
    return f"{value} at {at}{n}".replace("-", "−")
