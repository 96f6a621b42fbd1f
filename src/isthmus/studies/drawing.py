"""Estimates as lines, points and rows: what the pages of studies are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from isthmus.studies.evidence import Estimate, share
from isthmus.types import Metric, Series

Value = str | float | Metric | None
Row = tuple[Value, ...]


def band(name: str, x: Sequence[float], values: Sequence[Estimate]) -> Series:
    """A line of means with their intervals."""
    return _series(name, x, values, "line")


def dots(name: str, x: Sequence[float], counts: Sequence[int], n: int) -> Series:
    """One point for each model, with the Wilson interval of its images."""
    return _series(name, x, [share([count], n) for count in counts], "points")


def _series(name: str, x: Sequence[float], values: Sequence[Estimate], style: Literal["line", "points"]) -> Series:
    y, low, high = (tuple(getattr(one, part) for one in values) for part in ("value", "low", "high"))
    return Series(name, tuple(x), y, low, high, style=style, group=name)
