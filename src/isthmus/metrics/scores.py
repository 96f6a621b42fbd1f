"""Proper scoring rules: per-example losses of a predicted distribution over classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax


def _log_probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    # float64: in float32 a saturated classifier's losses would come out as exactly zero.
    return np.asarray(log_softmax(np.asarray(logits, dtype=np.float64), axis=-1), dtype=np.float64)


def probabilities(logits: ArrayLike) -> NDArray[np.float64]:
    """Softmax in float64: float[n, classes] to float[n, classes]. Log-probabilities are logits too."""
    return np.exp(_log_probabilities(logits))


def prediction_margin(logits: ArrayLike) -> NDArray[np.float64]:
    """The largest probability less the second largest, of each example: float[n, classes] to float[n] in [0, 1]."""
    ordered = np.sort(probabilities(logits), axis=-1)
    return np.asarray(ordered[:, -1] - ordered[:, -2], dtype=np.float64)


def nll(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Negative log-likelihood −log p(label) of each example, in nats.

    Args:
        logits: float[n, classes], or log-probabilities.
        labels: int[n].
    """
    return -np.take_along_axis(_log_probabilities(logits), _column(labels), axis=-1)[:, 0]


def brier(logits: ArrayLike, labels: ArrayLike) -> NDArray[np.float64]:
    """Brier's score of each example, Σ_k (p_k − [k = label])², in [0, 2] (Brier 1950, summed over all
    classes).

    Args:
        logits: float[n, classes], or log-probabilities.
        labels: int[n].
    """
    errors = probabilities(logits)
    at = _column(labels)
    np.put_along_axis(errors, at, np.take_along_axis(errors, at, axis=-1) - 1.0, axis=-1)
    return np.asarray((errors**2).sum(axis=-1), dtype=np.float64)


def _column(labels: ArrayLike) -> NDArray[np.intp]:
    return np.asarray(labels, dtype=np.intp)[:, None]
