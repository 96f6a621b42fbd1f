"""Split conformal prediction: sets of classes that contain the label with a given probability (Vovk et al. 2005).

A score of (example, class) is larger for classes that fit less. The threshold is the ⌈(n + 1)(1 − α)⌉-th smallest score
of the labels of n calibration examples, and a set holds all classes with a score up to it. If the scores of calibration
and new examples are exchangeable, a set contains the label with a probability of at least 1 − α, and with continuous
scores of at most 1 − α + 1/(n + 1). The probability is over calibration examples and new examples together, and holds
on average over classes, not for each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.metrics.scores import probabilities

Floats = NDArray[np.float64]


def lac_scores(logits: ArrayLike) -> Floats:
    """1 − p_k of each class: float[n, classes] (LAC, "least ambiguous set-valued classifiers", Sadinle et al. 2019).

    Args:
        logits: float[n, classes], or log-probabilities.
    """
    return 1.0 - probabilities(logits)


def aps_scores(logits: ArrayLike, uniform: ArrayLike) -> Floats:
    """Probability of all classes above k, plus a random share of p_k: float[n, classes] (APS, Romano et al. 2020).

    Sets of this score are larger for examples that are harder, and may be empty.

    Args:
        logits: float[n, classes], or log-probabilities.
        uniform: float[n], the random share of each example, uniform in [0, 1].
    """
    found = probabilities(logits)
    order = np.argsort(-found, axis=1, kind="stable")
    ordered = np.take_along_axis(found, order, axis=1)
    above = ordered.cumsum(axis=1) - ordered
    scores = np.empty_like(found)
    np.put_along_axis(scores, order, above + np.asarray(uniform, dtype=np.float64)[:, None] * ordered, axis=1)
    return scores


def conformal_threshold(scores: ArrayLike, labels: ArrayLike, alpha: float) -> float:
    """The threshold for a coverage of 1 − ``alpha``; infinite if there are too few examples for it.

    Args:
        scores: float[n, classes] of calibration examples, which are used for nothing else.
        labels: int[n].
    """
    index = np.asarray(labels, dtype=np.intp)[:, None]
    own = np.sort(np.take_along_axis(np.asarray(scores, dtype=np.float64), index, axis=1)[:, 0])
    rank = _rank(own.size, alpha)
    return math.inf if rank > own.size else float(own[rank - 1])


def coverage_range(calibration: int, n: int, alpha: float, level: float = 0.95) -> tuple[float, float]:
    """The range of the coverage of ``n`` new examples that chance explains, with a probability of at least ``level``.

    The number of covered examples is beta-binomial, since the coverage itself is beta-distributed over sets of
    calibration examples (Vovk 2012; Angelopoulos & Bates 2021, §3.2). With ties the coverage may be higher.
    """
    rank = _rank(calibration, alpha)
    if rank > calibration:
        return 1.0, 1.0
    from scipy.stats import betabinom  # it takes half a second to import

    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = betabinom.ppf(tails, n, rank, calibration + 1 - rank) / n
    return float(low), float(high)


def _rank(n: int, alpha: float) -> int:
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)  # 10·0.9 may exceed 9 by rounding
