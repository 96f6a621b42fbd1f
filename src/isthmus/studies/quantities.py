"""Quantities of a study: one number per seed, computed from rows, with its uncertainty over images.

``select("accuracy", model="B", split="test")`` picks rows. Quantities are added, subtracted, reduced over a coordinate
and turned into an :class:`isthmus.studies.estimates.Estimate`; claims, tables and plots are all made of them::

    gap = select("accuracy", split="train") - select("accuracy", split="test")
    lead = gap.at(model="A") - gap.at(model="B")
    slope = select("robust_accuracy", objective="ceb").slope("rho")

A claim is about a way of training, so a few runs leave two kinds of uncertainty: which images were evaluated, and which
seeds were trained. The interval of a mean over seeds adds the squares of both deviations. It is never narrower than the
interval over images alone, and the seeds add Student's t. Fewer than three seeds give no standard error: the interval
then covers the images alone, or there is none.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter, itemgetter
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from isthmus.core.types import Coordinate
from isthmus.studies.estimates import Estimate, half_width
from isthmus.studies.rows import Rows, Sample, Samples, Seed, Wanted, read_sample, signed_total

_FLOOR = 1e-12  # of a value whose logarithm is taken


class Quantity(ABC):
    """One number for each seed."""

    @abstractmethod
    def samples(self, rows: Rows, level: float) -> Samples:
        """The number of each seed for which it was measured.

        Raises:
            ValueError: several rows fit where one is needed.
        """

    @abstractmethod
    def at(self, **coords: Wanted) -> Quantity:
        """The same quantity under further conditions; coordinates that it already fixes stay fixed."""

    @abstractmethod
    def selections(self) -> tuple[Select, ...]:
        """The selections of rows that it is computed from."""

    @abstractmethod
    def __str__(self) -> str:
        """Its name in a sentence."""

    def __sub__(self, other: Quantity) -> Quantity:
        return Sum(((1, self), (-1, other)))

    def __add__(self, other: Quantity) -> Quantity:
        return Sum(((1, self), (1, other)))

    def log10(self) -> Quantity:
        """Its logarithm to base 10, in decades."""
        return Mapped(self, "log10")

    def abs(self) -> Quantity:
        """Its absolute value."""
        return Mapped(self, "abs")

    def mean_over_seeds(self) -> Quantity:
        """Its mean over seeds, to be compared with single models."""
        return Pooled(self)

    def exists(self, rows: Rows) -> bool:
        """Whether every selection has rows, for at least one seed."""
        return all(rows.select(each.name, each.where) for each in self.selections())

    def values(self, rows: Rows, coordinate: str) -> list[Coordinate]:
        """Values of a coordinate at which every selection has rows, in order of measurement."""
        sets = []
        for each in self.selections():
            if coordinate in each.where and not isinstance(each.where[coordinate], tuple):
                continue
            found = rows.select(each.name, each.where)
            sets.append(list(dict.fromkeys(row.coords[coordinate] for row in found if coordinate in row.coords)))
        return [value for value in sets[0] if all(value in other for other in sets)] if sets else []


@dataclass(frozen=True)
class Select(Quantity):
    """Rows with a name and coordinates; see :func:`select`."""

    name: str
    where: Mapping[str, Wanted] = field(default_factory=dict)

    def samples(self, rows: Rows, level: float) -> Samples:
        """See :class:`Quantity`."""
        found: Samples = {}
        for row in rows.select(self.name, self.where):
            seed = row.coords.get("seed")
            if seed in found:
                raise ValueError(f"several rows are {self} with seed {seed}; name more coordinates, or reduce over one")
            found[seed] = read_sample(row, rows, level)
        return found

    def at(self, **coords: Wanted) -> Select:
        """See :class:`Quantity`. A value among several that are allowed narrows them."""
        own = {key: value for key, value in self.where.items() if not (isinstance(value, tuple) and key in coords)}
        return replace(self, where={**coords, **own})

    def selections(self) -> tuple[Select, ...]:
        """See :class:`Quantity`."""
        return (self,)

    def max(self, over: str) -> Quantity:
        """The greatest value along a coordinate."""
        return Reduced(self, "max", over)

    def min(self, over: str) -> Quantity:
        """The least value along a coordinate."""
        return Reduced(self, "min", over)

    def first(self, over: str) -> Quantity:
        """The value at the least value of a coordinate."""
        return Reduced(self, "first", over)

    def last(self, over: str) -> Quantity:
        """The value at the greatest value of a coordinate."""
        return Reduced(self, "last", over)

    def mean(self, over: str) -> Quantity:
        """The mean along a coordinate."""
        return Reduced(self, "mean", over)

    def slope(self, over: str) -> Quantity:
        """The least-squares slope along a coordinate."""
        return Reduced(self, "slope", over)

    def apply(self, function: CourseFunction, *axes: str, unit: str = "") -> Quantity:
        """A number for each seed from the values on a grid of coordinates; the last resort.

        Args:
            function: from an array seeds × axes (NaN where nothing was measured) to one number for each seed.
            axes: coordinates, such as "layer", "epoch".
            unit: of the result; that of the rows if empty.
        """
        return Applied(self, function, axes, unit)

    def __str__(self) -> str:
        """Such as "test accuracy (model B)"."""
        inside = ", ".join(f"{key.replace('_', ' ')} {_words(value)}" for key, value in self.where.items())
        return self.name.replace("_", " ") + (f" ({inside})" if inside else "")


CourseFunction = Callable[[NDArray[np.float64]], NDArray[np.float64]]


def select(name: str, /, **where: Wanted) -> Select:
    """The rows with this name and these coordinates.

    Args:
        name: of the metric.
        where: values of coordinates; a tuple allows any of its values, None means that the coordinate is absent.
    """
    return Select(name, where)


def _words(value: Wanted) -> str:
    if isinstance(value, tuple):
        return " or ".join(map(_words, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class _Of(Quantity):
    """A quantity computed from another one."""

    of: Any

    def at(self, **coords: Wanted) -> Quantity:
        """See :class:`Quantity`."""
        return replace(self, of=self.of.at(**coords))

    def selections(self) -> tuple[Select, ...]:
        """See :class:`Quantity`."""
        found: tuple[Select, ...] = self.of.selections()
        return found


@dataclass(frozen=True)
class Reduced(_Of):
    """A selection reduced over a coordinate."""

    how: Literal["max", "min", "first", "last", "mean", "slope"]
    over: str

    def samples(self, rows: Rows, level: float) -> Samples:
        """See :class:`Quantity`."""
        found: dict[Seed, list[tuple[Any, Sample]]] = {}
        for row in rows.select(self.of.name, self.of.where):
            place = row.coords.get(self.over)
            if place is not None:
                found.setdefault(row.coords.get("seed"), []).append((place, read_sample(row, rows, level)))
        for places in found.values():
            if len({place for place, _ in places}) < len(places):
                raise ValueError(f"several rows are {self.of} at the same {self.over}; name more coordinates")
        reduced = {seed: _REDUCTIONS[self.how](places) for seed, places in found.items()}
        return {seed: each for seed, each in reduced.items() if each is not None}

    def __str__(self) -> str:
        """Such as "greatest accuracy over epoch"."""
        name = {"max": "greatest", "min": "least", "slope": "slope of"}.get(self.how, self.how)
        return f"{name} {self.of} over {self.over.replace('_', ' ')}"


def _mean(samples: Sequence[Sample]) -> Sample:
    value, below, above = (fmean(getattr(each, part) for each in samples) for part in ("value", "below", "above"))
    return replace(samples[0], value=value, below=below, above=above, outcomes=None)


def _slope(places: _Places) -> Sample | None:
    samples = [sample for _, sample in places]
    centre = fmean(place for place, _ in places)
    spread = sum((place - centre) ** 2 for place, _ in places)
    if spread == 0:
        return None
    weights = [(place - centre) / spread for place, _ in places]
    reach = math.hypot(*(abs(w) * max(s.below, s.above) for w, s in zip(weights, samples, strict=True)))
    value = sum(weight * sample.value for weight, sample in zip(weights, samples, strict=True))
    unit = "points" if samples[0].unit == "fraction" else samples[0].unit
    return Sample(value, reach, reach, min(sample.n for sample in samples), unit, samples[0].of_images)


_Places = list[tuple[Any, Sample]]  # values of a coordinate with the sample there
_REDUCTIONS: dict[str, Callable[[_Places], Sample | None]] = {
    "max": lambda places: max((sample for _, sample in places), key=attrgetter("value")),
    "min": lambda places: min((sample for _, sample in places), key=attrgetter("value")),
    "first": lambda places: min(places, key=itemgetter(0))[1],
    "last": lambda places: max(places, key=itemgetter(0))[1],
    "mean": lambda places: _mean([sample for _, sample in places]),
    "slope": _slope,
}


@dataclass(frozen=True)
class Applied(_Of):
    """A function of a grid of values; see :meth:`Select.apply`."""

    function: CourseFunction
    axes: tuple[str, ...]
    unit: str

    def samples(self, rows: Rows, level: float) -> Samples:
        """See :class:`Quantity`."""
        found = rows.select(self.of.name, self.of.where)
        if not found:
            return {}
        names = ("seed", *self.axes)
        places = [sorted({row.coords.get(name) for row in found}, key=_order) for name in names]
        grid = np.full([len(each) for each in places], np.nan)
        for row in found:
            grid[tuple(each.index(row.coords.get(name)) for each, name in zip(places, names, strict=True))] = row.value
        unit = self.unit or found[0].unit
        values = self.function(grid)
        return {
            seed: Sample(float(value), 0.0, 0.0, found[0].n, unit)
            for seed, value in zip(places[0], values, strict=True)
            if math.isfinite(value)
        }

    def __str__(self) -> str:
        """Such as "net falls of i xt"."""
        return f"{self.function.__name__.replace('_', ' ')} of {self.of}"


def _order(value: Any) -> tuple[bool, Any]:
    return (isinstance(value, str), value)


@dataclass(frozen=True)
class Mapped(_Of):
    """The logarithm, or the absolute value, of a quantity."""

    function: Literal["log10", "abs"]

    def samples(self, rows: Rows, level: float) -> Samples:
        """See :class:`Quantity`."""
        return {seed: self._mapped(sample) for seed, sample in self.of.samples(rows, level).items()}

    def _mapped(self, sample: Sample) -> Sample:
        if self.function == "abs":
            return replace(sample, value=abs(sample.value), outcomes=None)
        value, low, high = (
            math.log10(max(each, _FLOOR))
            for each in (sample.value, sample.value - sample.below, sample.value + sample.above)
        )
        return Sample(value, value - low, high - value, sample.n, "decades", sample.of_images)

    def __str__(self) -> str:
        """Such as "log10 of steps"."""
        return f"{'log10' if self.function == 'log10' else 'absolute value'} of {self.of}"


@dataclass(frozen=True)
class Pooled(_Of):
    """The mean over seeds, which is paired with every seed."""

    def samples(self, rows: Rows, level: float) -> Samples:
        """See :class:`Quantity`."""
        found = list(self.of.samples(rows, level).values())
        return {None: _mean(found)} if found else {}

    def at(self, **coords: Wanted) -> Quantity:
        """See :class:`Quantity`; a seed does not narrow it."""
        return replace(self, of=self.of.at(**{key: value for key, value in coords.items() if key != "seed"}))

    def __str__(self) -> str:
        """Such as "mean over seeds of accuracy"."""
        return f"mean over seeds of {self.of}"


@dataclass(frozen=True)
class Sum(Quantity):
    """Quantities added and subtracted, seed by seed; seeds that one of them lacks are left out."""

    terms: tuple[tuple[int, Quantity], ...]

    def samples(self, rows: Rows, level: float) -> Samples:
        """See :class:`Quantity`."""
        found = [(sign, quantity.samples(rows, level)) for sign, quantity in self.terms]
        if not all(samples for _, samples in found):
            return {}
        seeded = [samples.keys() for _, samples in found if None not in samples]
        seeds = [seed for seed in seeded[0] if all(seed in other for other in seeded)] if seeded else [None]
        return {
            seed: signed_total([(sign, samples.get(seed) or samples[None]) for sign, samples in found])
            for seed in seeds
        }

    def at(self, **coords: Wanted) -> Quantity:
        """See :class:`Quantity`."""
        return replace(self, terms=tuple((sign, quantity.at(**coords)) for sign, quantity in self.terms))

    def selections(self) -> tuple[Select, ...]:
        """See :class:`Quantity`."""
        return tuple(each for _, quantity in self.terms for each in quantity.selections())

    def __str__(self) -> str:
        """Such as "accuracy (model B) − accuracy (model A)"."""
        text = "".join(f" {'+' if sign > 0 else '−'} {quantity}" for sign, quantity in self.terms)
        return text[3:] if self.terms[0][0] > 0 else text.strip()


def estimate(quantity: Quantity, rows: Rows, level: float = 0.95) -> Estimate | None:
    """The mean of a quantity over seeds with its interval, for the choice of images and of seeds; None if unmeasured.

    All seeds are evaluated on the same images, so the deviations over images are averaged over seeds. Their squares and
    that of half of Student's t interval of the mean are added, as Newcombe (1998) does for two proportions.
    """
    samples = list(quantity.samples(rows, level).values())
    if not samples:
        return None
    values, first = [sample.value for sample in samples], samples[0]
    value, of_seeds = fmean(values), half_width(values, level)
    below = math.hypot(fmean(sample.below for sample in samples), of_seeds)
    above = math.hypot(fmean(sample.above for sample in samples), of_seeds)
    of_images = next((sample.of_images for sample in samples if sample.of_images), "")
    n = min(sample.n for sample in samples) if of_images else len(samples)
    low, high = max(value - below, first.bounds[0]), min(value + above, first.bounds[1])
    return Estimate(value, low, high, n, len(samples), level, first.unit, of_images)
