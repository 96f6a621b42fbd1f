"""Recalibration of logits, fitted on examples that are used for nothing else.

One temperature for all logits and a weight and a bias for each (Guo et al. 2017, arXiv:1706.04599), by likelihood; and
isotonic regression of each class's probability.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from isthmus.metrics.scores import nll, probabilities

Floats = NDArray[np.float64]

COLDEST, HOTTEST = 1e-3, 1e3
"""Range of the search."""

_LOWEST = 1e4


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


def fit_vector(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    """The weights w and biases b that maximise the likelihood of softmax(w·logits + b), by class (Guo et al. 2017).

    The mean NLL is convex; L-BFGS minimises it from the best temperature, with weights and biases in [−1000, 1000],
    which the optimum leaves if the examples are separable. Logits far below the largest count as 10,000 below it.

    Args:
        logits, labels: as for :func:`fit_temperature`.

    Raises:
        ValueError: as for :func:`fit_temperature`.
    """
    from scipy.optimize import minimize

    start = 1 / fit_temperature(logits, labels)
    scores, index = bounded(logits), np.asarray(labels, dtype=np.intp)
    classes = scores.shape[1]
    true = np.eye(classes)[index]

    def loss(values: Floats) -> tuple[float, Floats]:
        moved = scores * values[:classes] + values[classes:]
        error = (probabilities(moved) - true) / len(scores)
        return float(nll(moved, index).mean()), np.concatenate([(error * scores).sum(axis=0), error.sum(axis=0)])

    given = np.concatenate([np.full(classes, start), np.zeros(classes)])
    found = minimize(loss, given, jac=True, method="L-BFGS-B", bounds=[(-HOTTEST, HOTTEST)] * given.size).x
    return found[:classes], found[classes:]


def bounded(logits: ArrayLike) -> Floats:
    """Logits as float64, raised to 10,000 below the largest of their example where they are lower."""
    scores = np.asarray(logits, dtype=np.float64)
    return np.asarray(np.maximum(scores, scores.max(axis=1, keepdims=True) - _LOWEST), dtype=np.float64)


def fit_isotonic(logits: ArrayLike, labels: ArrayLike) -> Callable[[ArrayLike], Floats]:
    """Isotonic regression of every class against the others, normalised (Zadrozny & Elkan 2002).

    The regressions are scikit-learn's. A class keeps the probability 1/(classes·(n + 1)) at least, so that a label that
    never occurred among the n examples has a finite loss; together that is at most 1/(n + 1).

    Args:
        logits, labels: as for :func:`fit_temperature`.

    Returns:
        A function from logits float[m, classes] to log-probabilities of the same shape.
    """
    from sklearn.isotonic import IsotonicRegression

    given, index = probabilities(logits), np.asarray(labels, dtype=np.intp)
    n, classes = given.shape
    least = 1 / (classes * (n + 1))
    fitted = [
        IsotonicRegression(y_min=least, y_max=1.0, out_of_bounds="clip").fit(given[:, k], index == k)
        for k in range(classes)
    ]

    def scale(new: ArrayLike) -> Floats:
        raw = probabilities(new)
        found = np.stack([regression.predict(raw[:, k]) for k, regression in enumerate(fitted)], axis=1)
        return np.asarray(np.log(found / found.sum(axis=1, keepdims=True)), dtype=np.float64)

    return scale
