"""Uncertainty scores of each image, from its logits: larger for images unlike the training data.

Softmax rounds: of a sure classifier every probability is 0 or 1, and images that differ in their logits would tie.
These are computed from the distances of the other logits to the largest, so that they do not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import logsumexp

Floats = NDArray[np.float64]


def entropy(logits: ArrayLike) -> Floats:
    """Entropy of the predicted distribution over classes in nats, 0 to ln(classes), of each example.

    The score H of Fischer 2020 ("The Conditional Entropy Bottleneck", §3.1.3).

    Args:
        logits: float[n, classes], or log-probabilities.
    """
    below, odds = _below_the_largest(logits)
    rest = odds.sum(axis=-1)
    # −Σ p ln p = ln(1 + rest) − Σ p·below; where odds underflow to 0 their term is 0, also at −∞
    weighted = (odds * np.where(odds > 0, below, 0.0)).sum(axis=-1)
    return np.asarray(np.log1p(rest) - weighted / (1 + rest), dtype=np.float64)


def least_confidence(logits: ArrayLike) -> Floats:
    """1 − max_k p_k of each example, in [0, 1): the baseline of Hendrycks & Gimpel 2017 (arXiv:1610.02136), negated.

    Args:
        logits: float[n, classes], or log-probabilities.
    """
    rest = _below_the_largest(logits)[1].sum(axis=-1)
    return np.asarray(rest / (1 + rest), dtype=np.float64)


def energy(logits: ArrayLike) -> Floats:
    """−ln Σ_k exp(logit_k) of each example, in nats (Liu et al. 2020, "Energy-based out-of-distribution detection").

    It depends on the level of the logits, which softmax takes away: of log-probabilities it is 0.

    Args:
        logits: float[n, classes].
    """
    return np.asarray(-logsumexp(np.asarray(logits, dtype=np.float64), axis=-1), dtype=np.float64)


def negative_max_logit(logits: ArrayLike) -> Floats:
    """−max_k logit_k of each example (Hendrycks et al. 2022, arXiv:1911.11132); depends on the level of the logits.

    Args:
        logits: float[n, classes].
    """
    return np.asarray(-np.asarray(logits, dtype=np.float64).max(axis=-1), dtype=np.float64)


def _below_the_largest(logits: ArrayLike) -> tuple[Floats, Floats]:
    """Each logit less the largest, and e to the power of it, 0 in the place of the largest itself."""
    given = np.asarray(logits, dtype=np.float64)
    below = given - given.max(axis=-1, keepdims=True)
    odds = np.exp(below)
    np.put_along_axis(odds, given.argmax(axis=-1)[..., None], 0.0, axis=-1)
    return below, odds
