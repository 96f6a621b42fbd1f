"""Rows of a study, and samples: numbers of single seeds with their uncertainty over images."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from isthmus.core.types import Coordinate, Metric
from isthmus.metrics import clopper_pearson, wilson

Seed = Coordinate | None
"""A seed; None for a number that does not depend on it, which is paired with every seed."""
Wanted = Coordinate | tuple[Coordinate, ...] | None
"""A coordinate's value, a tuple of allowed values, or None if it must be absent."""
Bits = NDArray[np.bool_]
_SIGNED = ("points", "cosine")  # numbers in [-1, 1]
SYMBOLS = {"rho": "ρ", "beta": "β", "eps": "ε", "weight_decay": "λ"}
"""Coordinates that have a symbol."""


def coordinate_text(key: str, value: Coordinate) -> str:
    """A coordinate with its value, such as "ρ = 0.5" or "epoch 1,000"."""
    number = f"{value:g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
    number = number.replace("-", "−") if isinstance(value, float) else number
    return f"{SYMBOLS[key]} = {number}" if key in SYMBOLS else f"{key.replace('_', ' ')} {number}"


@dataclass(frozen=True)
class Outcomes:
    """Whether each example counts in a fraction.

    Attributes:
        images: digest of the examples, in their order; only outcomes of the same examples are paired.
    """

    images: str
    bits: Bits


class Rows:
    """The measured rows of a study, looked up by name and coordinates."""

    def __init__(self, metrics: Iterable[Metric], outcomes: Mapping[int, Outcomes] | None = None) -> None:
        self.all = list(metrics)
        self._outcomes = outcomes or {}  # by id of the metric
        self._named: dict[str, set[int]] = {}
        self._at: dict[tuple[str, Coordinate], set[int]] = {}
        self._having: dict[str, set[int]] = {}
        for number, metric in enumerate(self.all):
            self._named.setdefault(metric.name, set()).add(number)
            for key, value in metric.coords.items():
                self._at.setdefault((key, value), set()).add(number)
                self._having.setdefault(key, set()).add(number)

    def select(self, name: str, where: Mapping[str, Wanted]) -> list[Metric]:
        """Measured rows with this name and these coordinates, in order of measurement."""
        found = self._named.get(name, set())
        for key, value in where.items():
            if value is None:
                found = found - self._having.get(key, set())
            else:
                values = value if isinstance(value, tuple) else (value,)
                found = found & set().union(*(self._at.get((key, each), set()) for each in values))
        return [self.all[number] for number in sorted(found) if self.all[number].value is not None]

    def outcomes(self, metric: Metric) -> Outcomes | None:
        """Whether each example behind a row counts in it, if that was kept."""
        return self._outcomes.get(id(metric))


@dataclass(frozen=True)
class Sample:
    """A quantity for one seed.

    Attributes:
        below, above: deviations for the choice of images alone, at a given level; 0 if there are none.
        n: images behind it.
        of_images: method of these deviations; "" if there are none.
        bounds: least and greatest possible value.
    """

    value: float
    below: float
    above: float
    n: int
    unit: str
    of_images: str = ""
    bounds: tuple[float, float] = (-math.inf, math.inf)
    outcomes: Outcomes | None = None


Samples = dict[Seed, Sample]


def signed_total(terms: Sequence[tuple[int, Sample]]) -> Sample:
    """A signed sum of numbers of the same seed.

    The squares of the deviations over images are added (Newcombe 1998). If the outcomes of each image are known, their
    correlation enters, as in Newcombe's interval for paired proportions. Otherwise the interval is rather too wide,
    since models mostly err on the same images.
    """
    unit = terms[0][1].unit
    bounds = [sample.bounds if sign > 0 else (-sample.bounds[1], -sample.bounds[0]) for sign, sample in terms]
    reaches = [(sample.below, sample.above) if sign > 0 else (sample.above, sample.below) for sign, sample in terms]
    below, above = (_reach(terms, [each[side] for each in reaches]) for side in (0, 1))
    return Sample(
        sum(sign * sample.value for sign, sample in terms),
        below,
        above,
        min((sample.n for _, sample in terms if sample.n), default=0),
        "points" if unit == "fraction" else unit,
        next((sample.of_images for _, sample in terms if sample.of_images), ""),
        (sum(low for low, _ in bounds), sum(high for _, high in bounds)),
    )


def _reach(terms: Sequence[tuple[int, Sample]], reaches: Sequence[float]) -> float:
    total = sum(reach**2 for reach in reaches)
    for i, (sign, one) in enumerate(terms):
        for j, (other_sign, other) in enumerate(terms[:i]):
            total += 2 * sign * other_sign * _correlation(one.outcomes, other.outcomes) * reaches[i] * reaches[j]
    return math.sqrt(max(total, 0.0))


def _correlation(one: Outcomes | None, other: Outcomes | None) -> float:
    """The correlation of two models' outcomes over images; 0 if it is not known."""
    if one is None or other is None or one.images != other.images:
        return 0.0
    a, b = one.bits.astype(float), other.bits.astype(float)
    spread = float(a.std() * b.std())
    return float(np.mean((a - a.mean()) * (b - b.mean()))) / spread if spread else 0.0


def read_sample(row: Metric, rows: Rows, level: float) -> Sample:
    """A row as a sample, with its deviations over images at a level."""
    assert row.value is not None
    bounds = {"fraction": (0.0, 1.0), **dict.fromkeys(_SIGNED, (-1.0, 1.0))}.get(row.unit, (-math.inf, math.inf))
    if row.interval is None:
        return Sample(row.value, 0.0, 0.0, row.n, row.unit, "", bounds)
    below, above = _deviations(row, level, bounds)
    return Sample(row.value, below, above, row.n, row.unit, row.interval.method, bounds, rows.outcomes(row))


def _deviations(row: Metric, level: float, bounds: tuple[float, float]) -> tuple[float, float]:
    """Deviations of a row's interval below and above its value, at another level.

    Wilson's interval is computed again; others are scaled like those of a normal distribution. If all resamples were
    alike, the interval has no width. Then at most a fraction u of the images (Clopper & Pearson) is different.
    """
    value, interval = row.value, row.interval
    assert value is not None
    assert interval is not None
    if interval.method.startswith("Wilson"):
        interval = wilson(round(value * row.n), row.n, level)
        return max(value - interval.low, 0.0), max(interval.high - value, 0.0)
    if interval.low == interval.high and all(map(math.isfinite, bounds)):
        others = clopper_pearson(0, row.n, level).high
        return others * (value - bounds[0]), others * (bounds[1] - value)
    stretch = float(ndtri(0.5 + level / 2) / ndtri(0.5 + interval.level / 2))
    return stretch * max(value - interval.low, 0.0), stretch * max(interval.high - value, 0.0)
