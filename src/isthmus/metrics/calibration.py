"""Calibration: reliability bins, and the expected calibration error (ECE) with an interval that covers it.

Confidence is the probability of the predicted class. A classifier is calibrated if a fraction p of the predictions
with confidence p is correct.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from isthmus.core.types import Interval, Metric, Record
from isthmus.metrics.intervals import RESAMPLES, bootstrap, clopper_pearson

Scheme = Literal["width", "mass"]
Floats = NDArray[np.float64]
_SLACK = 1e-6  # a float32 softmax may sum to slightly more than one


class Bin(Record):
    """One reliability bin, [low, high) in confidence (the last one includes its high end).

    ``confidence`` (mean), ``accuracy`` and its Clopper-Pearson ``interval`` are None in an empty bin.
    """

    low: float
    high: float
    n: int
    confidence: float | None = None
    accuracy: float | None = None
    interval: Interval | None = None


def bin_edges(confidence: ArrayLike, bins: int = 20, scheme: Scheme = "width") -> Floats:
    """Edges of bins that cover [0, 1], ascending.

    ``"width"`` gives ``bins`` bins of equal width. ``"mass"`` cuts at the order statistics, so that bins
    hold equally many examples; equal confidences always share a bin, so with many ties (a saturated
    classifier) there are fewer.
    """
    if bins < 1:
        raise ValueError(f"there must be at least one bin; got {bins}")
    if scheme == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    ordered = np.sort(np.asarray(confidence, dtype=np.float64).ravel())
    cuts = ordered[np.arange(1, bins) * ordered.size // bins] if ordered.size else ordered
    return np.unique(np.concatenate([[0.0], cuts[cuts < 1.0], [1.0]]))


def _binned(
    confidence: ArrayLike, correct: ArrayLike, bins: int, scheme: Scheme
) -> tuple[Floats, Floats, Floats, NDArray[np.intp]]:
    """Checked confidences, outcomes as 0/1, edges, and the index of the one bin each example falls into."""
    level = np.asarray(confidence, dtype=np.float64).ravel()
    outcome = np.asarray(correct, dtype=bool).ravel().astype(np.float64)
    if level.size != outcome.size:
        raise ValueError(f"one outcome per confidence; got {level.size} confidences and {outcome.size} outcomes")
    if not ((level >= -_SLACK) & (level <= 1 + _SLACK)).all():
        raise ValueError("confidences must lie in [0, 1]; some do not, or are NaN")
    level = level.clip(0.0, 1.0)
    edges = bin_edges(level, bins, scheme)
    # Only the inner edges are searched, so nothing can fall outside the first or the last bin.
    return level, outcome, edges, np.searchsorted(edges[1:-1], level, side="right")


def reliability_bins(
    confidence: ArrayLike, correct: ArrayLike, bins: int = 20, scheme: Scheme = "width", level: float = 0.90
) -> tuple[Bin, ...]:
    """Sort examples into bins by confidence; every example is in exactly one, also at confidence 0 and 1.

    Args:
        confidence: float[n] in [0, 1].
        correct: bool[n].
        level: of the Clopper-Pearson interval of each bin's accuracy.

    Raises:
        ValueError: lengths that differ, a confidence outside [0, 1] or NaN, or no bins.
    """
    confidence, outcome, edges, index = _binned(confidence, correct, bins, scheme)
    count = edges.size - 1
    n = np.bincount(index, minlength=count)
    right = np.bincount(index, weights=outcome, minlength=count)
    total = np.bincount(index, weights=confidence, minlength=count)
    return tuple(
        Bin(
            low=edges[b],
            high=edges[b + 1],
            n=n[b],
            confidence=total[b] / n[b] if n[b] else None,
            accuracy=right[b] / n[b] if n[b] else None,
            interval=clopper_pearson(int(right[b]), int(n[b]), level) if n[b] else None,
        )
        for b in range(count)
    )


def ece(
    confidence: ArrayLike,
    correct: ArrayLike,
    bins: int = 20,
    scheme: Scheme = "width",
    debiased: bool = False,
) -> float:
    """Expected calibration error Σ_b (n_b/n)·|accuracy_b − confidence_b|, in [0, 1] (Naeini et al. 2015).

    The plain sum is biased upwards: chance alone separates accuracy from confidence in every bin. With
    ``debiased``, the bias that normal noise of each bin's accuracy would add is subtracted, as in Kumar,
    Liang & Ma 2019 ("Verified uncertainty calibration") but with the folded normal's mean in
    closed form where they draw samples. The result may then be slightly below zero.

    Raises:
        ValueError: no examples, lengths that differ, or a confidence outside [0, 1].
    """
    confidence, outcome, edges, index = _binned(confidence, correct, bins, scheme)
    if confidence.size == 0:
        raise ValueError("the calibration error of no examples is not defined")
    plain, corrected = _ece(outcome - confidence, outcome, index, edges.size - 1)
    return corrected if debiased else plain


def _ece(gaps: Floats, outcome: Floats, index: NDArray[np.intp], count: int) -> tuple[float, float]:
    """Plain and debiased ECE from per-example gaps (outcome − confidence)."""
    n = np.bincount(index, minlength=count)
    full = n > 0
    share, n = n[full] / gaps.size, n[full]
    gap = np.abs(np.bincount(index, weights=gaps, minlength=count)[full]) / n
    rate = np.bincount(index, weights=outcome, minlength=count)[full] / n
    deviation = np.sqrt(rate * (1 - rate) / n) + 1e-12
    ratio = gap / deviation
    expected = deviation * np.sqrt(2 / np.pi) * np.exp(-0.5 * ratio**2) + gap * (1 - 2 * ndtr(-ratio))
    return float((share * gap).sum()), float((share * (2 * gap - expected)).sum())


def calibration_error(
    confidence: ArrayLike,
    correct: ArrayLike,
    seed: int,
    bins: int = 20,
    scheme: Scheme = "width",
    level: float = 0.95,
    resamples: int = RESAMPLES,
) -> Metric:
    """The plain :func:`ece` with an interval for the ECE of the population, unit "fraction".

    A percentile bootstrap of the ECE never covers the ECE of a calibrated classifier, since resampling adds
    the bias of chance once more. The interval here reaches from the lower end of the reflected ("basic") to
    the upper end of the percentile bootstrap of the debiased ECE, and starts at zero unless the ECE exceeds
    what perfectly calibrated labels would show (consistency resampling, Bröcker & Smith 2007). The tests
    hold its coverage by simulation.

    Raises:
        ValueError: as for :func:`ece`; no examples give a metric that is not measured.
    """
    confidence, outcome, edges, index = _binned(confidence, correct, bins, scheme)
    n, count = confidence.size, edges.size - 1
    if n == 0:
        return Metric(value=None, unit="fraction", n=0, note="no examples")
    gaps = outcome - confidence
    plain, debiased = _ece(gaps, outcome, index, count)
    drawn = bootstrap(n, lambda i: _ece(gaps[i], outcome[i], index[i], count)[1], seed, resamples)
    top = float(np.quantile(drawn, (1 + level) / 2))
    explained = plain <= _calibrated_ece(confidence, index, count, (1 + level) / 2, seed, resamples)
    low = 0.0 if explained else min(max(2 * debiased - top, 0.0), plain)
    interval = Interval(low=low, high=min(max(top, plain), 1.0), level=level, method="debiased bootstrap over examples")
    return Metric(value=plain, unit="fraction", n=n, interval=interval)


def _calibrated_ece(
    confidence: Floats,
    index: NDArray[np.intp],
    count: int,
    quantile: float,
    seed: int,
    draws: int,
) -> float:
    """A quantile of the ECE with labels drawn from the confidences themselves: what chance alone gives."""
    generator = np.random.default_rng([seed, confidence.size, 1])
    errors = []
    for _ in range(draws):
        outcome = (generator.random(confidence.size) < confidence).astype(np.float64)
        errors.append(np.abs(np.bincount(index, weights=outcome - confidence, minlength=count)).sum())
    return float(np.quantile(errors, quantile)) / confidence.size
