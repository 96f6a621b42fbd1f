"""How many drawings a figure needs to stay readable: one, one per classifier, or one per variant of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from isthmus.core.display import Figure, Series

MANY_LINES = 6
"""More lines than this in one drawing cannot be distinguished."""


@dataclass(frozen=True)
class Panel:
    """One drawing of a figure.

    Attributes:
        title: what distinguishes this drawing from its neighbours; "" if it is the whole figure.
        series: drawn in full.
        background: drawn in grey behind, for comparison.
        group: the classifier of this drawing, if it has only one.
    """

    title: str
    series: tuple[Series, ...]
    background: tuple[Series, ...] = ()
    group: str = ""


def split(figure: Figure) -> tuple[Panel, ...]:
    """Divide a figure into drawings.

    Reliability diagrams (``identity``), bars, and points with intervals at different positions get one drawing for
    each of more than two classifiers. Too many lines are divided by variant (mean mode, stochastic mode, ...) where
    there are several, else by classifier with the others in grey.
    """
    groups = unique(group(series) for series in figure.series)
    variants = unique(variant(series) for series in figure.series if variant(series))
    lines = [series for series in figure.series if series.style in ("line", "dashed") and len(series.x) > 1]
    crowded = figure.identity or any(series.style == "bars" for series in figure.series) or _scattered(figure)
    if len(groups) > 2 and crowded:
        return tuple(Panel(name, _of_group(figure, name), group=name) for name in groups)
    if len(lines) > MANY_LINES and 1 < len(variants) <= 4 and len(groups) <= MANY_LINES:
        return tuple(Panel(name, _of_variant(figure, name)) for name in variants)
    if len(lines) > MANY_LINES and len(groups) > MANY_LINES:
        return tuple(Panel(name, _of_group(figure, name), _not_of_group(figure, name), name) for name in groups)
    return (Panel("", figure.series),)


def _scattered(figure: Figure) -> bool:
    """Whether points with intervals have so many positions that those of several classifiers overlap."""
    rows = [series.x for series in figure.series if series.style == "points" and series.low is not None]
    return bool(rows) and len({x for row in rows for x in row}) > 2 * max(map(len, rows))


def group(series: Series) -> str:
    """The classifier that a series belongs to; its own name if it has none."""
    return series.group or series.name


def variant(series: Series) -> str:
    """The part of a series' name beside its classifier's: "stochastic" of "ceb-rho2 (stochastic)"."""
    name, owner = series.name, group(series)
    rest = name.removeprefix(owner) if name.startswith(owner) else name.removesuffix(owner)
    return rest.strip(" \t·,:;–—-()[]")


def unique(names: Iterable[str]) -> list[str]:
    """Names without repetition, in order of first appearance."""
    return list(dict.fromkeys(names))


def _of_group(figure: Figure, name: str) -> tuple[Series, ...]:
    return tuple(series for series in figure.series if group(series) == name)


def _not_of_group(figure: Figure, name: str) -> tuple[Series, ...]:
    return tuple(series for series in figure.series if group(series) != name)


def _of_variant(figure: Figure, name: str) -> tuple[Series, ...]:
    """Series of a variant, and those of classifiers that have no variants: for comparison in every drawing."""
    chosen = [series for series in figure.series if variant(series) in (name, "")]
    # the panel's title replaces the dash
    return tuple(replace(one, style="line") if one.style == "dashed" else one for one in chosen)
