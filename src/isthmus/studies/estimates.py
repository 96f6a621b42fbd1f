"""Means over seeds with intervals, for the choice of images and of seeds.

One rule holds for all. A claim is about a way of training, so two kinds of chance stand between a few runs and a
verdict: which images were judged, and which seeds were trained with. The interval of a mean over seeds squares and adds
the deviations that either allows (:func:`over_seeds`): it is never narrower than what the images alone give, and the
seeds add Student's t. From fewer than three seeds no standard error is estimated: the interval is then that of the
images alone, or there is none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from scipy.special import ndtri, stdtrit

from isthmus.core.types import Interval, Metric
from isthmus.metrics import clopper_pearson, wilson

LEAST_SEEDS = 3
"""Seeds from which on their spread is estimated, and a claim about training can be decided."""
_SHARES = ("fraction", "points", "relative")  # units that are written as percentages
Ends = tuple[float, float, float]
"""A value with the ends of its 95% interval over images."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its interval.

    Attributes:
        value: the mean, or a difference of two means.
        low, high: the interval. With fewer than three seeds it covers the choice of images alone; both ends are the
            value if neither images nor seeds say how far it may be off.
        n: images (or points) judged for each seed, the smaller number for a difference; of quantities that are no
            share of images, the number of seeds.
        seeds: runs behind it; the smaller number for a difference.
        unit: of a share, "fraction", of a difference of two, "points", and of a ratio that may exceed 1, "relative":
            these are written as percentages. Decades are logarithms of ratios to base 10.
        of_images: how the interval for the choice of images is made; "" if only seeds are behind the interval.
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
        """Whether there is an interval at all."""
        return self.low < self.high and (self.seeds >= LEAST_SEEDS or self.of_images != "")

    @property
    def metric(self) -> Metric:
        """The same for a table."""
        seeds = "t over seeds" if self.seeds >= LEAST_SEEDS else f"{_counted(self.seeds)} alone"
        method = f"{self.of_images} over images, {seeds}" if self.of_images else seeds
        interval = Interval(low=self.low, high=self.high, level=self.level, method=method) if self.known else None
        unit = "fraction" if self.unit in _SHARES else self.unit
        return Metric(value=self.value, unit=unit, n=self.n, interval=interval)

    def __str__(self) -> str:
        """Such as "12.3% (95% interval 10.1% to 14.9%, n = 1,000, 3 seeds)"."""
        low, high = in_unit(self.low, self.unit, name=False), in_unit(self.high, self.unit)
        return f"{in_unit(self.value, self.unit)} ({self.reach(low, high)})"

    def reach(self, low: str, high: str) -> str:
        """What stands behind a value in brackets: the interval, given as text, what it is over, n and seeds."""
        if not self.known:
            return _counted(self.seeds)
        alone = " over images alone" if self.seeds < LEAST_SEEDS else "" if self.of_images else " over seeds alone"
        n = f", n = {self.n:,}" if self.of_images else ""
        return f"{100 * self.level:.3g}% interval{alone} {low} to {high}{n}, {_counted(self.seeds)}"


def _counted(seeds: int) -> str:
    return f"{seeds} seed{'s' * (seeds > 1)}"


def over_seeds(
    values: Sequence[float],
    images: tuple[float, float],
    n: int,
    level: float = 0.95,
    unit: str = "fraction",
    bounds: tuple[float, float] = (-math.inf, math.inf),
    of_images: str = "Wilson",
) -> Estimate:
    """Mean over seeds with the interval of every claim, for the choice of images and of seeds.

    All seeds are judged on the same images. So the images' deviations do not shrink with the number of seeds; those of
    the seeds (half of Student's t interval of the mean) are squared and added, as Newcombe (1998) does for two
    proportions. With fewer than three seeds the images' stand alone.

    Args:
        values: one for each seed.
        images: how far the choice of images alone reaches below and above the mean.
        bounds: what the mean cannot be below and above.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("give a value for each seed; got none")
    value, seeds = fmean(values), half_width(values, level)
    low, high = value - math.hypot(images[0], seeds), value + math.hypot(images[1], seeds)
    return Estimate(value, max(low, bounds[0]), min(high, bounds[1]), n, len(values), level, unit, of_images)


def half_width(values: Sequence[float], level: float) -> float:
    """Half of Student's t interval of a mean; 0 for fewer than three values, from which no spread is estimated."""
    if len(values) < LEAST_SEEDS:
        return 0.0
    return float(stdtrit(len(values) - 1, 0.5 + level / 2)) * stdev(values) / math.sqrt(len(values))


def share(counts: Sequence[int], n: int, level: float = 0.95) -> Estimate:
    """Mean over seeds of a share of the same ``n`` images; for the choice of images a Wilson interval at the mean.

    Args:
        counts: images that count, one number for each seed.

    Raises:
        ValueError: no count, or one outside 0..n.
    """
    return over_seeds([count / n for count in counts], _of_images(counts, n, level), n, level, bounds=(0.0, 1.0))


def _of_images(counts: Sequence[int], n: int, level: float) -> tuple[float, float]:
    """How far Wilson's interval at the mean count reaches below and above it."""
    if not counts or any(not 0 <= count <= n for count in counts):
        raise ValueError(f"give one count between 0 and n = {n} for each seed; got {list(counts)}")
    mean = fmean(counts)
    low, high = wilson(math.floor(mean), n, level).low, wilson(math.ceil(mean), n, level).high
    return max(mean / n - low, 0.0), max(high - mean / n, 0.0)


Term = tuple[Literal[1, -1], Sequence[int], int]
"""A sign, and a share: one count for each seed, and of how many images."""


def signed_sum(terms: Sequence[Term], level: float = 0.95) -> Estimate:
    """Mean over seeds of shares that are added or subtracted, of models with the same seeds in the same order.

    Training less test accuracy, for instance, or that of one model less that of another. The seeds' chance is that of
    the sums, seed by seed; the images' deviations of all shares are squared and added, which is rather too wide for
    shares of the same images, as models mostly err on the same ones.

    Raises:
        ValueError: unequal numbers of seeds, or what :func:`share` raises.
    """
    numbers = [len(counts) for _, counts, _ in terms]
    if len(set(numbers)) != 1:
        raise ValueError(f"give as many counts on both sides; got {' and '.join(map(str, numbers))}")
    reaches = [_of_images(counts, n, level)[::sign] for sign, counts, n in terms]
    below, above = (math.hypot(*side) for side in zip(*reaches, strict=True))
    sums = [sum(sign * counts[seed] / n for sign, counts, n in terms) for seed in range(numbers[0])]
    bounds = -float(sum(sign < 0 for sign, _, _ in terms)), float(sum(sign > 0 for sign, _, _ in terms))
    return over_seeds(sums, (below, above), min(n for _, _, n in terms), level, "points", bounds)


def gap(first: Sequence[int], second: Sequence[int], n: int, level: float = 0.95) -> Estimate:
    """Mean over seeds of ``first`` less ``second``, of models with the same seeds, or of the same models twice.

    Args:
        first, second: images that count, of ``n`` each, in the same order of seeds.

    Raises:
        ValueError: as :func:`signed_sum`.
    """
    return signed_sum([(1, first, n), (-1, second, n)], level)


def ends(metric: Metric) -> list[float] | None:
    """Value, low and high of what was measured, as cells hold it and :func:`pooled` takes it; None without a value."""
    if metric.value is None:
        return None
    found = metric.interval
    return [metric.value, *((found.low, found.high) if found else (metric.value, metric.value))]


def pooled(
    measured: Sequence[Ends], n: int, level: float = 0.95, lowest: float = 0.0, highest: float = 1.0
) -> Estimate:
    """Mean over seeds of a measure in [``lowest``, ``highest``] with an interval of its own on each seed's images.

    The mean of these intervals' deviations stands for the choice of images. For another level than 95% they are
    stretched as those of a normal would be. An interval without width (all resamples alike) is replaced by what it
    stands for: at most a share u of images (Clopper & Pearson) behaves otherwise.

    Args:
        measured: value, low and high for each seed, with 95% intervals.
        n: images judged for each seed.

    Raises:
        ValueError: no seed.
    """
    stretch = float(ndtri(0.5 + level / 2) / ndtri(0.975))
    others = clopper_pearson(0, n, level).high
    reaches = [
        (stretch * max(value - low, 0.0), stretch * max(high - value, 0.0))
        if low < high
        else (others * (value - lowest), others * (highest - value))
        for value, low, high in measured
    ]
    images = fmean(below for below, _ in reaches or [(0.0, 0.0)]), fmean(above for _, above in reaches or [(0.0, 0.0)])
    values = [value for value, _, _ in measured]
    return over_seeds(values, images, n, level, bounds=(lowest, highest), of_images="bootstrap")


def average(values: Sequence[float], level: float = 0.95, unit: str = "nats") -> Estimate:
    """Mean over seeds of a quantity that comes without an interval over images: Student's t over seeds alone.

    Raises:
        ValueError: no value.
    """
    return over_seeds(values, (0.0, 0.0), len(values), level, unit, of_images="")


def trend(runs: Iterable[tuple[int, float, Ends]], n: int, level: float = 0.95) -> Estimate | None:
    """Least-squares slope of a share over x, seed by seed: the mean over seeds, by how much it rises for a unit of x.

    Args:
        runs: seed, x, and the share with its 95% interval over images.
        n: images judged for each run.

    Returns:
        None if no seed has runs at two places.
    """
    stretch = float(ndtri(0.5 + level / 2) / ndtri(0.975))
    by_seed: dict[int, list[tuple[float, Ends]]] = {}
    for seed, x, measured in runs:
        by_seed.setdefault(seed, []).append((x, measured))
    slopes, reaches = [], []
    for points_of in by_seed.values():
        centre = fmean(x for x, _ in points_of)
        spread = sum((x - centre) ** 2 for x, _ in points_of)
        if spread == 0:
            continue
        weights = [(x - centre) / spread for x, _ in points_of]
        slopes.append(sum(weight * value for weight, (_, (value, _, _)) in zip(weights, points_of, strict=True)))
        wide = [
            abs(weight) * max(value - low, high - value)
            for weight, (_, (value, low, high)) in zip(weights, points_of, strict=True)
        ]
        reaches.append(stretch * math.hypot(*wide))
    if not slopes:
        return None
    return over_seeds(slopes, (fmean(reaches), fmean(reaches)), n, level, "points")


def per_unit(slope: Estimate) -> str:
    """A trend in words: "3.1 points for each unit (95% interval 1.0 to 5.2 points, n = 1,000, 3 seeds)"."""
    return f"{points(slope.value)} for each unit ({slope.reach(points(slope.low, unit=False), points(slope.high))})"


def difference(first: Estimate, second: Estimate) -> Estimate:
    """``first`` less ``second``, with the deviations of both squared and added.

    Two classifiers that were judged on the same images mostly err on the same ones: this interval is rather too wide.
    """
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    n, seeds = min(first.n, second.n), min(first.seeds, second.seeds)
    of_images = first.of_images and second.of_images
    if first.unit not in _SHARES:
        return Estimate(value, low, high, n, seeds, first.level, first.unit, of_images)
    most = 1.0 if first.unit == second.unit == "fraction" else math.inf
    return Estimate(value, max(low, -most), min(high, most), n, seeds, first.level, "points", of_images)


def percent(fraction: float, unit: bool = True) -> str:
    """0.973 as "97.3%"; below 1% with two decimals."""
    return f"{100 * fraction:.{2 if 0 < abs(fraction) < 0.01 else 1}f}{'%' * unit}".replace("-", "−")


def points(fraction: float, unit: bool = True) -> str:
    """A difference of 0.031 as "3.1 points"."""
    return percent(fraction, unit=False) + " points" * unit


def bits(value: float, unit: bool = True) -> str:
    """1.5 as "1.500 bits"."""
    return f"{value:.3f}{' bits' * unit}".replace("-", "−")


def decades(value: float, unit: bool = True) -> str:
    """A factor of 10^0.5 as "0.50 decades"."""
    return f"{value:.2f}{' decades' * unit}".replace("-", "−")


def nats(value: float, unit: bool = True) -> str:
    """2.3026 as "2.303 nats"."""
    return f"{value:.3f}{' nats' * unit}".replace("-", "−")


def in_unit(value: float, unit: str, name: bool = True) -> str:
    """A number as text, with the name of its unit."""
    writers = {
        "fraction": percent,
        "relative": percent,
        "points": points,
        "nats": nats,
        "bits": bits,
        "decades": decades,
    }
    if unit in writers:
        return writers[unit](value, name)
    shown = name and unit not in ("", "cosine", "ratio")
    return f"{value:.3g}{f' {unit}' * shown}".replace("-", "−")
