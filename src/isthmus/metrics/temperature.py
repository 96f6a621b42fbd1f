"""Temperature scaling: one number that divides all logits, fitted by likelihood (Guo et al. 2017, arXiv:1706.04599)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from isthmus.metrics.scores import probabilities

COLDEST, HOTTEST = 1e-3, 1e3
"""Range of the search."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The T that maximises the likelihood of softmax(logits / T). It changes no prediction.

    The mean NLL is convex in 1/T with the derivative E[Σ_k p_k·z_k − z_y], whose zero is bracketed and found. If the
    likelihood rises down to the coldest temperature, as when every example is right, that is returned; similarly for
    the hottest.

    Args:
        logits: float[n, classes], finite, of examples that are used for nothing else; log-probabilities are logits too.
        labels: int[n].

    Raises:
        ValueError: no example, another number of labels, or logits that are not finite.
    """
    scores, index = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.intp)
    if scores.ndim != 2 or len(scores) == 0 or len(scores) != len(index) or not np.isfinite(scores).all():
        raise ValueError(
            f"a temperature is fitted on finite logits, n x classes, with a label each and n > 0; got {scores.shape} "
            f"and {len(index)} labels"
        )
    true = np.take_along_axis(scores, index[:, None], axis=1)[:, 0]

    def slope(log_inverse: float) -> float:
        expected = (probabilities(scores * np.exp(log_inverse)) * scores).sum(axis=1)
        return float((expected - true).mean())

    low, high = -np.log(HOTTEST), -np.log(COLDEST)
    if slope(low) >= 0.0:
        return HOTTEST
    if slope(high) <= 0.0:
        return COLDEST
    from scipy.optimize import brentq  # it takes a third of a second to import

    return float(np.exp(-brentq(slope, low, high, xtol=1e-10)))
