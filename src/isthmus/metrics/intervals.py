"""Confidence intervals of proportions, means over examples, and differences of two proportions or means."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv, ndtri

from isthmus.core.types import Interval, Metric

RESAMPLES = 1000


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion (Wilson 1927); good coverage on average, also near 0 and 1.

    Args:
        successes: 0 to ``n``.
        n: trials; if there are none, the interval is [0, 1].

    Raises:
        ValueError: ``successes`` outside 0..n, or ``level`` outside (0, 1).
    """
    _check_counts(successes, n, level)
    low, high = _wilson(successes, n, float(ndtri(0.5 + level / 2))) if n else (0.0, 1.0)
    return Interval(low=low, high=high, level=level, method="Wilson")


def _wilson(successes: float, n: int, z: float) -> tuple[float, float]:
    fraction = successes / n
    centre = fraction + z * z / (2 * n)
    radius = z * math.sqrt(fraction * (1 - fraction) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # At the ends the exact limit is 0 or 1; rounding would leave 1e-17 and exclude the estimate itself.
    low = 0.0 if successes == 0 else (centre - radius) / scale
    high = 1.0 if successes == n else (centre + radius) / scale
    return low, high


def clopper_pearson(successes: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval of a proportion (Clopper & Pearson 1934): coverage is never below ``level``.

    With ``n`` = 0 the interval is [0, 1].

    Raises:
        ValueError: ``successes`` outside 0..n, or ``level`` outside (0, 1).
    """
    _check_counts(successes, n, level)
    tail = (1 - level) / 2
    low = float(betaincinv(successes, n - successes + 1, tail)) if successes else 0.0
    high = float(betaincinv(successes + 1, n - successes, 1 - tail)) if successes < n else 1.0
    return Interval(low=low, high=high, level=level, method="Clopper-Pearson")


def _check_counts(successes: int, n: int, level: float) -> None:
    if not 0 <= successes <= n:
        raise ValueError(f"successes must lie between 0 and n; got {successes} of {n}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1; got {level}")


def proportion(successes: int, n: int, level: float = 0.95) -> Metric:
    """A proportion with its Wilson interval; unit "fraction"; not measured (value None) if ``n`` is 0."""
    interval = wilson(successes, n, level)
    if n == 0:
        return Metric(value=None, unit="fraction", n=0, note="no examples")
    return Metric(value=successes / n, unit="fraction", n=n, interval=interval)


def accuracy(correct: ArrayLike, level: float = 0.95) -> Metric:
    """Fraction of ``correct`` (booleans, one per example) with its Wilson interval."""
    flags = np.asarray(correct, dtype=bool).ravel()
    return proportion(int(flags.sum()), flags.size, level)


def paired_difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Metric:
    """Accuracy of ``second`` minus accuracy of ``first`` on the same examples, with Newcombe's paired
    interval.

    The interval squares and adds the Wilson limits' distances, less their correlation (Newcombe 1998,
    Statistics in Medicine 17:2635-2650, method 10). It uses that the examples are the same, so it is
    narrower than the overlap of two separate intervals suggests.

    Args:
        first, second: booleans, one per example, in the same order.

    Raises:
        ValueError: the two differ in length.
    """
    a, b = np.asarray(first, dtype=bool).ravel(), np.asarray(second, dtype=bool).ravel()
    if a.size != b.size:
        raise ValueError(f"paired outcomes must be of the same examples; got {a.size} and {b.size}")
    n = a.size
    if n == 0:
        return Metric(value=None, unit="fraction", n=0, note="no examples")
    p, q = b.mean(), a.mean()
    (p_low, p_high), (q_low, q_high) = (_limits(int(x.sum()), n, level) for x in (b, a))
    phi = _phi(a, b)
    below, above = p - p_low, q_high - q
    low = (p - q) - math.sqrt(max(below**2 - 2 * phi * below * above + above**2, 0.0))
    above, below = p_high - p, q - q_low
    high = (p - q) + math.sqrt(max(above**2 - 2 * phi * above * below + below**2, 0.0))
    interval = Interval(low=low, high=high, level=level, method="Newcombe, paired")
    return Metric(value=float(p - q), unit="fraction", n=n, interval=interval)


def difference(first: ArrayLike, second: ArrayLike, level: float = 0.95) -> Metric:
    """Accuracy of ``second`` minus accuracy of ``first`` on other examples, with Newcombe's interval.

    The distances of the Wilson limits, squared and added (Newcombe 1998, Statistics in Medicine 17:873-890, method 10).

    Args:
        first, second: booleans, one per example; their numbers may differ, and ``n`` is the smaller one.
    """
    a, b = np.asarray(first, dtype=bool).ravel(), np.asarray(second, dtype=bool).ravel()
    n = min(a.size, b.size)
    if n == 0:
        return Metric(value=None, unit="fraction", n=0, note="no examples")
    p, q = float(b.mean()), float(a.mean())
    (p_low, p_high), (q_low, q_high) = (_limits(int(x.sum()), x.size, level) for x in (b, a))
    low = p - q - math.hypot(p - p_low, q_high - q)
    high = p - q + math.hypot(p_high - p, q - q_low)
    interval = Interval(low=low, high=high, level=level, method="Newcombe, independent")
    return Metric(value=p - q, unit="fraction", n=n, interval=interval)


def _limits(successes: int, n: int, level: float) -> tuple[float, float]:
    interval = wilson(successes, n, level)
    return interval.low, interval.high


def _phi(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Correlation of two paired outcomes, with Newcombe's continuity correction; 0 if one never varies."""
    n = a.size
    both, neither = int((a & b).sum()), int((~a & ~b).sum())
    only_a, only_b = int((a & ~b).sum()), int((~a & b).sum())
    margins = (both + only_a) * (only_b + neither) * (both + only_b) * (only_a + neither)
    if margins == 0:
        return 0.0
    covariance = float(both * neither - only_a * only_b)
    if covariance > 0:
        covariance = max(covariance - n / 2, 0.0)
    return covariance / math.sqrt(margins)


def bootstrap(
    n: int,
    statistic: Callable[[NDArray[np.intp]], float | NDArray[Any]],
    seed: int,
    resamples: int = RESAMPLES,
) -> NDArray[np.float64]:
    """A statistic of ``resamples`` draws of ``n`` examples with replacement; the same seed gives the same
    draws.

    Args:
        statistic: from the drawn examples' indices, int[n], to a number or an array of numbers.

    Returns:
        The statistics, stacked along the first axis.
    """
    generator = np.random.default_rng([seed, n])
    return np.array([statistic(generator.integers(n, size=n)) for _ in range(resamples)], dtype=np.float64)


def norm_of_mean(values: ArrayLike, unit: str, seed: int, level: float = 0.95, resamples: int = RESAMPLES) -> Metric:
    """Euclidean length of the mean of per-example vectors (or the absolute value of the mean of numbers).

    A length is never negative, so quantiles of resampled lengths would exclude 0 even if it is the true value. The
    interval is therefore the range of lengths over a confidence region of the mean itself: of the bootstrap's means,
    the ``level`` that lie nearest to the mean by Mahalanobis distance. It starts at 0 if the region contains the
    origin, and covers the true value at least as often as the region does.

    Args:
        values: n × k, or n numbers. Differences from a point, for a distance to it.

    Returns:
        Not measured without values; without an interval if one of them is not finite.
    """
    sample = np.asarray(values, dtype=np.float64)
    n = len(sample)
    if n == 0:
        return Metric(value=None, unit=unit, n=0, note="no examples")
    sample = sample.reshape(n, -1)
    centre = sample.mean(0)
    length = float(np.linalg.norm(centre))
    if not np.isfinite(sample).all():
        return Metric(value=length, unit=unit, n=n, note="not finite for some examples")
    means = bootstrap(n, lambda drawn: sample[drawn].mean(0), seed, resamples)
    scatter = means - centre
    precision = np.linalg.pinv(np.atleast_2d(scatter.T @ scatter / resamples), hermitian=True)
    far = np.einsum("ni,ij,nj->n", scatter, precision, scatter)
    edge = np.quantile(far, level)
    lengths = np.append(np.linalg.norm(means[far <= edge], axis=1), length)
    within = _spanned(centre, precision) and centre @ precision @ centre <= edge
    low = 0.0 if within else float(lengths.min())
    interval = Interval(low=low, high=float(lengths.max()), level=level, method="bootstrap over examples, by region")
    return Metric(value=length, unit=unit, n=n, interval=interval)


def _spanned(vector: NDArray[np.float64], precision: NDArray[np.float64]) -> bool:
    """Whether a vector lies in the directions in which a sample varies at all."""
    projected = np.linalg.pinv(precision, hermitian=True) @ (precision @ vector)
    return bool(np.allclose(projected, vector, rtol=1e-6, atol=1e-12))


def mean(values: ArrayLike, unit: str, seed: int, level: float = 0.95, resamples: int = RESAMPLES) -> Metric:
    """Mean of per-example values with a bootstrap interval over the examples: percentile, and studentised.

    A percentile interval of few or skewed values is too narrow: for 30 exponential values it covers 91%. The
    studentised one (bootstrap-t, Efron 1979) accounts for skewness; here it is limited to the range of the values.
    Their union covers 95% there and 90 to 94% of 30 log-normal values (σ = 1), but 90% of 30 values of which nine in
    ten are zero, and 86 to 92% of ten skewed values.

    Not measured without values. If a value is not finite, neither is the mean, and there is no interval.
    """
    sample = np.asarray(values, dtype=np.float64).ravel()
    n = sample.size
    if n == 0:
        return Metric(value=None, unit=unit, n=0, note="no examples")
    if not np.isfinite(sample).all():
        return Metric(value=float(sample.mean()), unit=unit, n=n, note="not finite for some examples")
    drawn = bootstrap(n, lambda places: np.array([sample[places].mean(), sample[places].var()]), seed, resamples)
    bounds = float(sample.min()), float(sample.max())
    error = math.sqrt(sample.var() / n)
    errors = np.sqrt(_stabilised(drawn[:, 1], sample.var(), n) / n)
    interval = _studentised(float(sample.mean()), error, drawn[:, 0], errors, level, bounds, "bootstrap over examples")
    return Metric(value=float(sample.mean()), unit=unit, n=n, interval=interval)


def _stabilised(variances: NDArray[np.float64], variance: float, n: int) -> NDArray[np.float64]:
    """Variances of resamples, mixed with 1/n of the sample's own, so that none is zero."""
    return ((n - 1) * variances + variance) / n


def _studentised(
    value: float,
    error: float,
    values: NDArray[np.float64],
    errors: NDArray[np.float64],
    level: float,
    bounds: tuple[float, float],
    method: str,
) -> Interval:
    """The union of the percentile interval of resampled values and the studentised one, which is cut to ``bounds``."""
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = (float(end) for end in np.quantile(values, tails))
    if error > 0:
        least, most = value - error * np.quantile((values - value) / errors, tails[::-1])
        low, high = min(low, max(float(least), bounds[0])), max(high, min(float(most), bounds[1]))
    return Interval(low=low, high=high, level=level, method=f"{method}, percentile and studentised")


def mean_difference(
    first: ArrayLike, second: ArrayLike, unit: str, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> Metric:
    """Mean of ``second`` minus mean of ``first``, over other examples, with a bootstrap interval as in :func:`mean`.

    Each resample draws from each sample as many values as it has; ``n`` is the smaller number. Not measured without
    values; without an interval for a single value or one that is not finite.
    """
    a, b = (np.asarray(values, dtype=np.float64).ravel() for values in (first, second))
    n = min(a.size, b.size)
    if n == 0:
        return Metric(value=None, unit=unit, n=0, note="no examples")
    value = float(b.mean() - a.mean())
    if n == 1 or not np.isfinite(value):
        note = "an interval needs two examples of either kind" if n == 1 else "not finite for some examples"
        return Metric(value=value, unit=unit, n=n, note=note)
    generator = np.random.default_rng([seed, a.size, b.size])
    drawn = np.empty((resamples, 3))
    for row in drawn:
        others, ours = b[generator.integers(b.size, size=b.size)], a[generator.integers(a.size, size=a.size)]
        row[:] = others.mean() - ours.mean(), ours.var(), others.var()
    error = math.sqrt(a.var() / a.size + b.var() / b.size)
    squares = (_stabilised(drawn[:, 1 + at], each.var(), each.size) / each.size for at, each in enumerate((a, b)))
    bounds = float(b.min() - a.max()), float(b.max() - a.min())
    method = "bootstrap over examples of either kind"
    interval = _studentised(value, error, drawn[:, 0], np.sqrt(sum(squares)), level, bounds, method)
    return Metric(value=value, unit=unit, n=n, interval=interval)
