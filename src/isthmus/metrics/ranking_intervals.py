"""Detection of out-of-distribution examples with intervals.

Near 1 an AUROC depends on a few examples that are ranked wrongly, and a percentile bootstrap is too narrow: at 0.995 it
covers 66 to 87% (100 scores of each class). So the interval of AUROC is the union of two: DeLong's on the logit scale
follows the scores' own variance; Newcombe's has the variance of a model at the interval's end, which does not vanish
with the sample's. AUPR has a bootstrap that draws each class separately, and is at least as uncertain as AUROC.
``python -m benchmarks.detection_intervals`` measures what they cover. If the scores of the classes do not overlap at
all, the interval is exact (see :func:`_separated`). The interval of a false positive rate is never narrower than its
count allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri

from isthmus.core.types import Interval, Metric
from isthmus.metrics.intervals import RESAMPLES, wilson
from isthmus.metrics.ranking import Ranked, aupr_of, auroc_of, counted, fpr_of, places

TPR = 0.95
FEWEST = 2
"""Smallest number of examples per class for an interval."""

DETECTION = ("fpr95_in", "fpr95_out", "auroc", "aupr_in", "aupr_out")
"""Metrics of :func:`detection_metrics`; the suffix names the positive class."""

Places = NDArray[np.intp]
_AT_A_TIME = 2**17  # counts and draws held at once, few enough for a cache
_METHOD = "bootstrap over examples of either class"


def detection_metrics(
    inside: ArrayLike, outside: ArrayLike, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> dict[str, Metric]:
    """FPR at 95% TPR, AUROC and AUPR of a score that is larger for out-of-distribution examples, with intervals.

    Each resample draws from each class as many examples as it has; the same seed and sizes draw the same examples for
    every score. The percentile interval is widened to one of the
    bootstrap's standard error on the logit scale; that of a false positive rate also to Wilson's interval of the rate
    at the threshold that was found, and that of AUPR to the deviations of AUROC's interval on the logit scale. AUROC:
    :func:`_auroc_interval`. Unit "fraction".

    Args:
        inside, outside: scores of in- and of out-of-distribution examples; see :mod:`isthmus.metrics.ranking` for what
            is measured.

    Returns:
        A metric for each name of :data:`DETECTION`; ``n`` is the number of examples, for a false positive rate that of
        the negative class. Not measured if there are fewer than two examples of a class.

    Raises:
        ValueError: NaN among the scores.
    """
    sizes = {"in": np.size(inside), "out": np.size(outside)}
    n = dict.fromkeys(DETECTION, sum(sizes.values())) | {"fpr95_in": sizes["out"], "fpr95_out": sizes["in"]}
    if min(sizes.values()) < FEWEST:
        note = f"needs two examples of each class; there are {sizes['in']} in- and {sizes['out']} out-of-distribution"
        return {name: Metric(value=None, unit="fraction", n=n[name], note=note) for name in DETECTION}
    groups = places(inside, outside)
    counts = counted(*groups)
    values = {name: float(found) for name, found in _all(counts).items()}
    if values["auroc"] in (0.0, 1.0):
        intervals = _separated(values, sizes, level)
    else:
        intervals = {"auroc": _auroc_interval(counts, values["auroc"], level)}
    drawn = [_all(counts) for counts in _resampled(*groups, seed, resamples)]
    for name in sorted(set(values) - set(intervals)):
        found = np.concatenate([part[name] for part in drawn])
        low, high = (float(end) for end in np.quantile(found, [(1 - level) / 2, (1 + level) / 2]))
        error, method = float(found.std(ddof=1)), f"{_METHOD}, widened on the logit scale"
        least, most = _on_logit_scale(values, name, error, intervals["auroc"])
        low, high = min(low, least), max(high, most)
        if name.startswith("fpr"):
            other = wilson(round(values[name] * n[name]), n[name], level)
            low, high, method = min(low, other.low), max(high, other.high), f"{method}, no narrower than Wilson's"
        intervals[name] = Interval(low=low, high=high, level=level, method=method)
    return {
        name: Metric(value=value, unit="fraction", n=n[name], interval=intervals[name])
        for name, value in values.items()
    }


def _all(counts: Ranked) -> dict[str, NDArray[np.float64]]:
    return {
        "fpr95_in": fpr_of(counts, TPR, "in"),
        "fpr95_out": fpr_of(counts, TPR, "out"),
        "auroc": auroc_of(counts),
        "aupr_in": aupr_of(counts, "in"),
        "aupr_out": aupr_of(counts, "out"),
    }


def _resampled(inside: Places, outside: Places, seed: int, resamples: int) -> Iterator[Ranked]:
    """Counts of the drawn examples, of as many samples at a time as memory likes; the draws do not depend on that."""
    generator = np.random.default_rng([seed, inside.size, outside.size])
    rows = max(1, _AT_A_TIME // (inside.size + outside.size))
    for start in range(0, resamples, rows):
        pairs = [
            tuple(group[generator.integers(group.size, size=group.size)] for group in (inside, outside))
            for _ in range(min(rows, resamples - start))
        ]
        drawn = [np.stack(group) for group in zip(*pairs, strict=True)]
        yield counted(*drawn)


def _auroc_interval(counts: Ranked, value: float, level: float) -> Interval:
    """The union of two intervals of an AUROC strictly between 0 and 1.

    DeLong, DeLong & Clarke-Pearson 1988 with the logit transform (Pepe 2003), and Newcombe 2006 (Statistics in Medicine
    25:559-573, method 5).
    """
    z = float(ndtri(0.5 + level / 2))
    n_in, n_out = (int(passed[-1]) for passed in counts.passed)
    low, high = _newcombe(value, n_in, n_out, z)
    reach = z * math.sqrt(_delong_variance(counts, value)) / (value * (1 - value))
    low, high = min(low, float(expit(logit(value) - reach))), max(high, float(expit(logit(value) + reach)))
    return Interval(low=low, high=high, level=level, method="logit DeLong, no narrower than Newcombe's")


def _delong_variance(counts: Ranked, value: float) -> float:
    """Of an AUROC, from how many of the other class each example is ranked rightly against."""
    variance = 0.0
    for own, other, sign in ((counts.outside, counts.inside, 1), (counts.inside, counts.outside, -1)):
        below = (other.cumsum() - 0.5 * other) / other.sum()
        rightly = below if sign > 0 else 1 - below
        n = int(own.sum())
        variance += float((own * (rightly - value) ** 2).sum()) / (n * (n - 1))
    return variance


def _newcombe(value: float, n_in: int, n_out: int, z: float) -> tuple[float, float]:
    """The ends x from which ``value`` lies z standard deviations away, with the variance of an AUROC of x.

    The variance is Hanley & McNeil's (1982) of exponential scores. For unequal numbers it is the larger one of the two
    that come from exchanging the classes; for equal ones this is Newcombe's method 5.
    """
    least, most = sorted((n_in, n_out))

    def deviation(x: float) -> float:
        small, large = sorted(((1 - x) / (2 - x), x / (1 + x)))
        return z * math.sqrt(x * (1 - x) / (n_in * n_out) * (1 + (least - 1) * small + (most - 1) * large))

    from scipy.optimize import brentq  # it takes a third of a second to import

    low = brentq(lambda x: x - value + deviation(x), 0.0, value)
    high = brentq(lambda x: x - value - deviation(x), value, 1.0)
    return float(low), float(high)


def _on_logit_scale(values: Mapping[str, float], name: str, error: float, auroc: Interval) -> tuple[float, float]:
    """Ends from a standard error as log odds; those of an AUPR reach at least as far as AUROC's from its value."""
    value, z = values[name], float(ndtri(0.5 + auroc.level / 2))
    if not 0 < value < 1:
        return value, value
    below = above = z * error / (value * (1 - value))
    if name.startswith("aupr"):
        low, high = (float(abs(logit(end) - logit(values["auroc"]))) for end in (auroc.low, auroc.high))
        below, above = max(below, low), max(above, high)
    return float(expit(logit(value) - below)), float(expit(logit(value) + above))


def _separated(values: Mapping[str, float], sizes: Mapping[str, int], level: float) -> dict[str, Interval]:
    """Intervals of AUROC and AUPR where one class's scores all lie above the other's.

    Let t be the largest score of the lower class. Of the upper class's population at most a = 1 − α^(1/n) lies below t,
    and of the lower one's at most b above it, each but for a probability α = (1 − level)/2: the "rule of three", exact
    also for b, since t is an order statistic (Wilks 1941). Hence AUROC ≥ (1 − a)(1 − b), and precision at recall r is
    bounded by what false positive rates a and b allow, up to recalls 1 − b and 1 − a.
    """
    alpha = (1 - level) / 2
    miss = {name: 1 - alpha ** (1 / n) for name, n in sizes.items()}
    kept = math.prod(1 - share for share in miss.values())
    right = values["auroc"] == 1.0
    bounds = {"auroc": (kept, 1.0) if right else (0.0, 1 - kept)}
    for name, other in (("in", "out"), ("out", "in")):
        ratio = sizes[other] / sizes[name]
        value = values[f"aupr_{name}"]
        if right:
            bounds[f"aupr_{name}"] = min(value, _area(0.0, 1 - miss[name], ratio * miss[other])), 1.0
        else:  # negatives come first: beyond a recall of `miss` at least 1 − `miss` of them
            most = miss[name] + _area(miss[name], 1.0, ratio * (1 - miss[other]))
            bounds[f"aupr_{name}"] = min(value, _area(0.0, 1.0, ratio)), max(value, most)
    method = "exact, of scores that do not overlap"
    return {name: Interval(low=low, high=high, level=level, method=method) for name, (low, high) in bounds.items()}


def _area(start: float, end: float, c: float) -> float:
    """∫ r/(r + c) dr: precision at recall r where false positives are c times the positives."""
    return (end - start) - c * math.log((end + c) / (start + c))
