"""A mean over seeds with its interval, and how numbers are written."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

from scipy.special import stdtrit

from isthmus.core.types import Interval, Metric

LEAST_SEEDS = 3
"""The least number of seeds from which a spread is estimated and a claim about training is decided."""
_PERCENTAGES = ("fraction", "points", "relative")  # units that are written as percentages


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval.

    Attributes:
        value: the mean, or a difference of two means.
        low, high: the interval. With fewer than three seeds it covers the choice of images alone; both ends equal the
            value if neither images nor seeds give an uncertainty.
        n: images (or points) evaluated for each seed, the smaller number for a difference; the number of seeds if no
            interval over images is known.
        seeds: runs behind it; the smaller number for a difference.
        unit: "fraction", "points" for a difference of fractions, and "relative" for a ratio that may exceed 1 are
            written as percentages. Decades are logarithms of ratios to base 10.
        of_images: method of the interval over images; "" if the interval covers seeds alone.
    """

    value: float
    low: float
    high: float
    n: int
    seeds: int
    level: float = 0.95
    unit: str = "fraction"
    of_images: str = "Wilson"

    @property
    def known(self) -> bool:
        """Whether there is an interval."""
        return self.low < self.high and (self.seeds >= LEAST_SEEDS or self.of_images != "")

    @property
    def metric(self) -> Metric:
        """The same for a table."""
        seeds = "t over seeds" if self.seeds >= LEAST_SEEDS else f"{_counted(self.seeds)} alone"
        method = f"{self.of_images} over images, {seeds}" if self.of_images else seeds
        interval = Interval(low=self.low, high=self.high, level=self.level, method=method) if self.known else None
        unit = "fraction" if self.unit in _PERCENTAGES else self.unit
        return Metric(value=self.value, unit=unit, n=self.n, interval=interval)

    def __str__(self) -> str:
        """Such as "12.3% (95% interval 10.1% to 14.9%, n = 1,000, 3 seeds)"."""
        value, low = in_unit(self.value, self.unit), in_unit(self.low, self.unit, name=False)
        if not self.known:
            return f"{value} ({_counted(self.seeds)})"
        covers = " over images alone" if self.seeds < LEAST_SEEDS else "" if self.of_images else " over seeds alone"
        interval = f"{100 * self.level:.3g}% interval{covers} {low} to {in_unit(self.high, self.unit)}"
        return f"{value} ({interval}{f', n = {self.n:,}' if self.of_images else ''}, {_counted(self.seeds)})"


def _counted(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds > 1)}"


def half_width(values: Sequence[float], level: float) -> float:
    """Half of Student's t interval of a mean; 0 for fewer than three values, from which no spread is estimated."""
    if len(values) < LEAST_SEEDS:
        return 0.0
    return float(stdtrit(len(values) - 1, 0.5 + level / 2)) * stdev(values) / math.sqrt(len(values))


def percent(fraction: float, unit: bool = True) -> str:
    """0.973 as "97.3%"; below 1% with two decimals."""
    return f"{100 * fraction:.{2 if 0 < abs(fraction) < 0.01 else 1}f}{'%' * unit}".replace("-", "−")


def points(fraction: float, unit: bool = True) -> str:
    """A difference of 0.031 as "3.1 points"."""
    return percent(fraction, unit=False) + " points" * unit


_DECIMALS = {"nats": 3, "bits": 3, "decades": 2}


def in_unit(value: float, unit: str, name: bool = True) -> str:
    """A number as text, with the name of its unit: "97.3%", "1.500 bits", "0.50 decades"."""
    if unit in ("fraction", "relative"):
        return percent(value, name)
    if unit == "points":
        return points(value, name)
    number = f"{value:.{_DECIMALS[unit]}f}" if unit in _DECIMALS else f"{value:.3g}"
    shown = name and unit not in ("", "cosine", "ratio")
    return f"{number}{f' {unit}' * shown}".replace("-", "−")
