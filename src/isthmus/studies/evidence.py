"""From counts to a verdict on a paper's claim: seen, not seen, or not decidable with as much as was measured.

A claim is about a way of training, so two kinds of chance stand between a few runs and a verdict: which images were
judged, and which seeds were trained with. Both go into the interval of a mean over seeds. A claim is seen where the
whole interval lies on its side of the limit, not seen where the whole interval lies on the other, and otherwise
undecided. A single run says nothing about other seeds, so one seed never decides a claim about training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev
from typing import Literal

from scipy.special import ndtri, stdtrit

from isthmus.metrics import wilson
from isthmus.types import Interval, Metric, Record

_MEANS = ("nats", "bits", "decades")  # units of means over seeds that are no shares of images


class Verdict(StrEnum):
    """What the numbers say about a claim."""

    SEEN = "seen"
    NOT_SEEN = "not seen"
    UNDECIDED = "not decidable at this scale"


class Finding(Record):
    """A claim of the paper, the verdict on it, and the numbers that led there, as one sentence."""

    claim: str
    verdict: Verdict
    because: str

    def __str__(self) -> str:
        """One line: the verdict first."""
        return f"{self.verdict}: {self.claim} {self.because}"


def undecided(claim: str, because: str = "Not measured.") -> Finding:
    """A claim about which nothing was measured, or not enough."""
    return Finding(claim=claim, verdict=Verdict.UNDECIDED, because=because)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with an interval for both kinds of chance.

    Attributes:
        value: the mean, or a difference of two means.
        low, high: the interval; with a single seed it covers the choice of images alone.
        n: images (or points) judged for each seed; of quantities that are no share of images, the number of seeds.
        seeds: runs behind it; the smaller number for a difference.
        unit: of a share, "fraction", and of a difference of two, "points", which are written as percentages. Decades
            are logarithms of ratios to base 10.
        of_images: how the interval for the choice of images is made.
    """

    value: float
    low: float
    high: float
    n: int
    seeds: int
    level: float = 0.95
    unit: Literal["fraction", "points", "nats", "bits", "decades"] = "fraction"
    of_images: str = "Wilson"

    @property
    def metric(self) -> Metric:
        """The same for a table."""
        if self.unit in _MEANS:
            interval = Interval(low=self.low, high=self.high, level=self.level, method="t over seeds")
            return Metric(value=self.value, unit=self.unit, n=self.n, interval=interval if self.seeds > 1 else None)
        method = f"{self.of_images} over images, {'t over seeds' if self.seeds > 1 else 'one seed'}"
        interval = Interval(low=self.low, high=self.high, level=self.level, method=method)
        return Metric(value=self.value, unit="fraction", n=self.n, interval=interval)

    def __str__(self) -> str:
        """Such as "12.3% (95% interval 10.1% to 14.9%, n = 1,000, 3 seeds)"."""
        write = {"fraction": percent, "points": points, "nats": nats, "bits": bits, "decades": decades}[self.unit]
        ends = f"{100 * self.level:.3g}% interval {write(self.low, unit=False)} to {write(self.high)}"
        seeds = f"{self.seeds} seed{'s' * (self.seeds > 1)}"
        if self.seeds == 1 and self.low == self.high:  # no images, and no other seed, to tell a spread from
            return f"{write(self.value)} ({seeds})"
        if self.unit in _MEANS:
            return f"{write(self.value)} ({ends}, {seeds})"
        return f"{write(self.value)} ({ends}, n = {self.n:,}, {seeds})"


def share(counts: Sequence[int], n: int, level: float = 0.95) -> Estimate:
    """Mean over seeds of a share of the same ``n`` images.

    The deviations of a Wilson interval at the mean (images) and of Student's t interval of the mean (seeds) are squared
    and added, as Newcombe (1998) does for two proportions.

    Args:
        counts: images that count, one number for each seed.

    Raises:
        ValueError: no count, or one outside 0..n.
    """
    if not counts or any(not 0 <= count <= n for count in counts):
        raise ValueError(f"give one count between 0 and n = {n} for each seed; got {list(counts)}")
    shares = [count / n for count in counts]
    value, seeds = fmean(shares), len(shares)
    images = wilson(round(fmean(counts)), n, level)
    spread = half_width(shares, level)
    below, above = max(value - images.low, 0.0), max(images.high - value, 0.0)
    low, high = value - math.hypot(below, spread), value + math.hypot(above, spread)
    return Estimate(value, max(low, 0.0), min(high, 1.0), n, seeds, level)


def ends(metric: Metric) -> list[float] | None:
    """Value, low and high of what was measured, as cells hold it and :func:`pooled` takes it; None without a value."""
    if metric.value is None:
        return None
    found = metric.interval
    return [metric.value, *((found.low, found.high) if found else (metric.value, metric.value))]


def pooled(
    measured: Sequence[tuple[float, float, float]], n: int, level: float = 0.95, lowest: float = 0.0
) -> Estimate:
    """Mean over seeds of a measure in [``lowest``, 1] that has a bootstrap's interval of its own on each seed's images.

    All seeds are judged on the same images: the mean of these intervals' deviations stands for the choice of images,
    and Student's t for that of seeds, as in :func:`share`. For another level than 95% the deviations are stretched as
    those of a normal would be.

    Args:
        measured: value, low and high for each seed, with 95% intervals.
        n: images judged for each seed.

    Raises:
        ValueError: no seed.
    """
    if not measured:
        raise ValueError("give a value with its interval for each seed; got none")
    values = [value for value, _, _ in measured]
    value, spread = fmean(values), half_width(values, level)
    stretch = float(ndtri(0.5 + level / 2) / ndtri(0.975))
    below = stretch * fmean(max(each - low, 0.0) for each, low, _ in measured)
    above = stretch * fmean(max(high - each, 0.0) for each, _, high in measured)
    low, high = value - math.hypot(below, spread), value + math.hypot(above, spread)
    return Estimate(value, max(low, lowest), min(high, 1.0), n, len(values), level, of_images="bootstrap")


def average(
    values: Sequence[float], level: float = 0.95, unit: Literal["nats", "bits", "decades", "points"] = "nats"
) -> Estimate:
    """Mean over seeds of a quantity in some unit, with Student's t interval; a single one has no interval.

    Raises:
        ValueError: no value.
    """
    if not values:
        raise ValueError("give a value for each seed; got none")
    mean, spread = fmean(values), half_width(values, level)
    return Estimate(mean, mean - spread, mean + spread, len(values), len(values), level, unit)


def trend(x: Sequence[float], y: Sequence[float], level: float = 0.95) -> Estimate:
    """Least-squares slope of y over x with its t interval: by how much a share rises for each unit of x.

    Args:
        x, y: one pair for each run; at least three runs at two places.

    Raises:
        ValueError: fewer runs or places.
    """
    n = len(x)
    if n < 3 or len(set(x)) < 2:
        raise ValueError(f"a trend needs three runs at two places; got {n} at {len(set(x))}")
    centre = fmean(x)
    spread = sum((a - centre) ** 2 for a in x)
    slope = sum((a - centre) * b for a, b in zip(x, y, strict=True)) / spread
    height = fmean(y)
    rest = sum((b - height - slope * (a - centre)) ** 2 for a, b in zip(x, y, strict=True))
    deviation = float(stdtrit(n - 2, 0.5 + level / 2)) * math.sqrt(rest / (n - 2) / spread)
    return Estimate(slope, slope - deviation, slope + deviation, n, n, level, "points")


def per_unit(slope: Estimate) -> str:
    """A trend in words: "3.1 points for each unit (95% interval 1.0 to 5.2 points, 7 runs)"."""
    ends = f"{100 * slope.level:.3g}% interval {points(slope.low, unit=False)} to {points(slope.high)}"
    return f"{points(slope.value)} for each unit ({ends}, {slope.n} runs)"


def gap(first: Sequence[int], second: Sequence[int], n: int, level: float = 0.95) -> Estimate:
    """Mean over seeds of ``first`` less ``second``, of models with the same seeds, or of the same models twice.

    The chance of images is as in :func:`difference`; that of seeds is Student's t of the differences, seed by seed.

    Args:
        first, second: images that count, of ``n`` each, in the same order of seeds.

    Raises:
        ValueError: unequal numbers of seeds, or what :func:`share` raises.
    """
    if len(first) != len(second):
        raise ValueError(f"give as many counts on both sides; got {len(first)} and {len(second)}")
    by_images = difference(*(share([round(fmean(counts))], n, level) for counts in (first, second)))
    steps = [(a - b) / n for a, b in zip(first, second, strict=True)]
    value, seeds = fmean(steps), len(steps)
    spread = half_width(steps, level)
    low = value - math.hypot(by_images.value - by_images.low, spread)
    high = value + math.hypot(by_images.high - by_images.value, spread)
    return Estimate(value, max(low, -1.0), min(high, 1.0), n, seeds, level, "points")


def half_width(values: Sequence[float], level: float) -> float:
    """Half of Student's t interval of a mean; 0 for a single value, whose spread is not known."""
    if len(values) < 2:
        return 0.0
    return float(stdtrit(len(values) - 1, 0.5 + level / 2)) * stdev(values) / math.sqrt(len(values))


def difference(first: Estimate, second: Estimate) -> Estimate:
    """``first`` less ``second``, with the deviations of both squared and added.

    Two classifiers that were judged on the same images mostly err on the same ones: this interval is rather too wide.
    """
    value = first.value - second.value
    low = value - math.hypot(first.value - first.low, second.high - second.value)
    high = value + math.hypot(first.high - first.value, second.value - second.low)
    n, seeds = min(first.n, second.n), min(first.seeds, second.seeds)
    return Estimate(value, max(low, -1.0), min(high, 1.0), n, seeds, first.level, "points")


def exceeds(estimate: Estimate, limit: float, least_seeds: int = 2) -> Verdict:
    """The verdict on "more than ``limit``"; ``least_seeds`` is 1 where the claim is about a single model."""
    if estimate.seeds < least_seeds:
        return Verdict.UNDECIDED
    return Verdict.SEEN if estimate.low > limit else Verdict.NOT_SEEN if estimate.high <= limit else Verdict.UNDECIDED


def falls_below(estimate: Estimate, limit: float, least_seeds: int = 2) -> Verdict:
    """The verdict on "less than ``limit``"; see :func:`exceeds`."""
    if estimate.seeds < least_seeds:
        return Verdict.UNDECIDED
    return Verdict.SEEN if estimate.high < limit else Verdict.NOT_SEEN if estimate.low >= limit else Verdict.UNDECIDED


def all_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on a claim that has several parts: one that is not seen refutes it, one undecided leaves it open."""
    for worse in (Verdict.NOT_SEEN, Verdict.UNDECIDED):
        if worse in verdicts:
            return worse
    return Verdict.SEEN if verdicts else Verdict.UNDECIDED


def any_of(verdicts: Sequence[Verdict]) -> Verdict:
    """The verdict on "at least one of these"; correct the level for their number before (:func:`bonferroni`)."""
    for better in (Verdict.SEEN, Verdict.UNDECIDED):
        if better in verdicts:
            return better
    return Verdict.NOT_SEEN if verdicts else Verdict.UNDECIDED


def bonferroni(parts: int, level: float = 0.95) -> float:
    """The level of each of several intervals such that all of them hold at once with ``level``."""
    return 1 - (1 - level) / max(parts, 1)


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
