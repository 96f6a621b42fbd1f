"""Legends as HTML beside a drawing: they never cover data, wrap on a phone and keep the page's text size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from markupsafe import Markup
from matplotlib.markers import MarkerStyle
from matplotlib.path import Path

from isthmus.core import scales
from isthmus.core.display import Figure, Series
from isthmus.core.drawing import Look
from isthmus.report import labels
from isthmus.report.figures import dash
from isthmus.report.palette import NEUTRAL, PAPER, VARIABLES, Looks
from isthmus.report.panels import Panel, group, unique, variant

_COMMANDS = {Path.MOVETO: "M", Path.LINETO: "L", Path.CURVE3: "Q", Path.CURVE4: "C", Path.CLOSEPOLY: "Z"}


@dataclass(frozen=True)
class Entry:
    """A swatch with its name; ``parts`` are a classifier's variants, each with its swatch."""

    swatch: Markup
    name: str
    parts: tuple[Entry, ...] = ()


def entries(figure: Figure, panels: Sequence[Panel], looks: Looks) -> list[Entry]:
    """Legend entries that distinguish a figure's series, beyond the titles of the panels."""
    if labels.ends(figure, panels):
        found = []  # the names are in the drawing
    elif len(panels) == 1:
        found = [_classifier(name, panels[0], looks) for name in unique(group(one) for one in figure.series)]
    elif panels[0].group:  # each panel is one classifier, in its colour: only its variants are to be named
        named = unique(variant(one) for one in figure.series)
        first = {variant(one): one for one in reversed(figure.series)}
        found = [_variant(first[name], panels, name) for name in named if len(named) > 1]
    else:
        found = [Entry(swatch(looks.of(name)), name) for name in unique(group(one) for one in figure.series)]
    if any(panel.background for panel in panels):
        found.append(Entry(swatch(Look(NEUTRAL.colour, "")), "the others"))
    if figure.identity:
        found.append(Entry(swatch(NEUTRAL, (2, 2)), "ideal: both axes equal"))
    y_range = scales.ranges(scales.zoomed(figure))[1]
    if any(any(scales.places(panel.series, y_range)) for panel in panels):
        found.append(Entry(Markup(), "coinciding lines are offset"))
    return found


def swatch(look: Look, dashes: tuple[float, ...] = (), kind: str = "line") -> Markup:
    """A small sample of a line, a point or a bar."""
    colour = VARIABLES[look.colour]
    if kind == "bars":
        shape = f'<rect x="7" y="2" width="14" height="10" style="fill:{colour};opacity:.55"/>'
    else:
        pattern = f";stroke-dasharray:{' '.join(f'{1.8 * part:g}' for part in dashes)}" if dashes else ""
        line = f'<path d="M1 7H27" style="stroke:{colour};stroke-width:2{pattern}"/>' if kind == "line" else ""
        fill = VARIABLES[PAPER] if dashes else colour
        path = f'<path d="{marker_path(look.marker)}" style="fill:{fill};stroke:{colour};stroke-width:1.2"/>'
        shape = line + (path if look.marker else "")
    return Markup('<svg class="swatch" viewBox="0 0 28 14" aria-hidden="true">' + shape + "</svg>")


@cache
def marker_path(marker: str, size: float = 7.0) -> str:
    """SVG path of a matplotlib marker, centred in a swatch: legend and drawing show the same shape."""
    style = MarkerStyle(marker)
    path = style.get_path().transformed(style.get_transform())
    commands = []
    for vertices, code in path.iter_segments(curves=True, simplify=False):
        pairs = zip(vertices[::2], vertices[1::2], strict=True)
        # matplotlib's y axis points up, SVG's down
        points = " ".join(f"{14 + size * x:.2f} {7 - size * y:.2f}" for x, y in pairs)
        commands.append(_COMMANDS[code] + (points if code != Path.CLOSEPOLY else ""))
    return "".join(commands)


def _classifier(name: str, panel: Panel, looks: Looks) -> Entry:
    """One classifier's entry: a single swatch, or one for each of its variants."""
    own = [series for series in panel.series if group(series) == name]
    samples = [_sample(series, looks.of(name), panel) for series in own]
    if len(own) == 1:
        label = own[0].name if variant(own[0]) == "" else f"{name}, {variant(own[0])}"
        return Entry(samples[0], label if own[0].group else name)
    return Entry(Markup(), name, tuple(Entry(s, variant(o) or o.name) for s, o in zip(samples, own, strict=True)))


def _variant(series: Series, panels: Sequence[Panel], name: str) -> Entry:
    panel = next(panel for panel in panels if series in panel.series)
    return Entry(_sample(series, NEUTRAL, panel), name or "plain")


def _sample(series: Series, look: Look, panel: Panel) -> Markup:
    if series.style == "bars":
        return swatch(look, kind="bars")
    kind = "line" if series.style != "points" and len(series.x) > 1 else "points"
    return swatch(look, dash(series, panel.series) if kind == "line" else (), kind)
