"""Detection of out-of-distribution examples with intervals: a bootstrap that draws either class by itself.

Where scores do not overlap at all, every resample says 0 or 1 and a bootstrap's interval has no width. What such
samples allow is told exactly instead (see :func:`_separated`), and no false positive rate is surer than its count
allows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.metrics.intervals import RESAMPLES, wilson
from isthmus.metrics.ranking import Ranked, aupr_of, auroc_of, counted, fpr_of, places
from isthmus.types import Interval, Metric

TPR = 0.95
FEWEST = 2
"""Examples of either class; of a single one no interval can be told."""

DETECTION = ("fpr95_in", "fpr95_out", "auroc", "aupr_in", "aupr_out")
"""What :func:`detection_metrics` gives: the ending says which class is the positive one."""

Places = NDArray[np.intp]
_AT_A_TIME = 2**17  # counts and draws held at once, few enough for a cache
_METHOD = "bootstrap over examples of either class"


def detection_metrics(
    inside: ArrayLike, outside: ArrayLike, seed: int, level: float = 0.95, resamples: int = RESAMPLES
) -> dict[str, Metric]:
    """FPR at 95% TPR, AUROC and AUPR of a score that is larger for out-of-distribution examples, with intervals.

    Each resample draws as many in-distribution examples as there are from these, and as many others from those; the
    same seed and numbers draw the same examples, whatever the score. The percentile interval of a false positive rate
    is widened to Wilson's interval of the rate at the threshold that was found. Unit "fraction".

    Args:
        inside, outside: scores of in- and of out-of-distribution examples; see :mod:`isthmus.metrics.ranking` for what
            is measured.

    Returns:
        A metric for each name of :data:`DETECTION`; ``n`` is the number of examples, for a false positive rate that of
        the negative class. Not measured where there are fewer than two examples of a class.

    Raises:
        ValueError: NaN among the scores.
    """
    sizes = {"in": np.size(inside), "out": np.size(outside)}
    n = dict.fromkeys(DETECTION, sum(sizes.values())) | {"fpr95_in": sizes["out"], "fpr95_out": sizes["in"]}
    if min(sizes.values()) < FEWEST:
        note = f"needs two examples of each class; there are {sizes['in']} in- and {sizes['out']} out-of-distribution"
        return {name: Metric(value=None, unit="fraction", n=n[name], note=note) for name in DETECTION}
    groups = places(inside, outside)
    values = {name: float(found) for name, found in _all(counted(*groups)).items()}
    drawn = [_all(counts) for counts in _resampled(*groups, seed, resamples)]
    intervals = {}
    for name, value in values.items():
        low, high = np.quantile(np.concatenate([part[name] for part in drawn]), [(1 - level) / 2, (1 + level) / 2])
        intervals[name] = Interval(low=float(low), high=float(high), level=level, method=_METHOD)
        if name.startswith("fpr"):
            intervals[name] = _no_narrower(intervals[name], wilson(round(value * n[name]), n[name], level))
    if values["auroc"] in (0.0, 1.0):
        intervals |= _separated(values, sizes, level)
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


def _no_narrower(interval: Interval, other: Interval) -> Interval:
    low, high = min(interval.low, other.low), max(interval.high, other.high)
    return interval.model_copy(update={"low": low, "high": high, "method": f"{_METHOD}, no narrower than Wilson's"})


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
