"""Entropy and information of samples of discrete variables, from frequencies of values, in nats; 0·ln 0 = 0.

These are plug-in (maximum-likelihood) estimates, the exact quantities of the empirical distribution. If a sample is
small for the number of values, entropy is underestimated and information overestimated (Paninski 2003).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from isthmus.core.errors import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


def entropy(values: ArrayLike) -> float:
    """Ĥ of n values of one variable: at most ln n, and 0 if all are equal.

    Raises:
        DataError: no values, or values that are not integers.
    """
    return _entropy(np.unique(_whole(values, "values"), return_counts=True)[1])


def independent_entropy(values: ArrayLike) -> float:
    """Σ Ĥ of each column: an upper bound on the joint entropy, which treats columns as independent.

    For images with 8-bit pixels, n × pixels, this is the conservative bound on H(X) of "A Rate-Distortion Theory of
    Adversarial Examples", §4.2: at most 8 bits (5.55 nats) per pixel, for uniform pixels.

    Args:
        values: integers, n × columns.

    Raises:
        DataError: no values, or values that are not integers.
    """
    numbers = np.asarray(values)
    if numbers.ndim != 2 or not numbers.size or numbers.dtype.kind not in "iub":
        raise DataError(f"Values must be integers, examples × columns; got {numbers.dtype} of {numbers.shape}.")
    return sum(entropy(column) for column in numbers.T)


def information(first: ArrayLike, second: ArrayLike) -> float:
    """Î(A;B) of n pairs: at most min(Ĥ(A), Ĥ(B)), symmetric, never negative.

    Takes O(n·ln n) time for any number of values. For a table of few values use :func:`confusion_information`.

    Args:
        first, second: integers, used as symbols.

    Raises:
        DataError: no pairs, values that are not integers, or different lengths.
    """
    a, b = _whole(first, "values"), _whole(second, "values")
    if len(a) != len(b):
        raise DataError(f"Information needs pairs of values; got {len(a)} and {len(b)} values.")
    (_, own, often), (_, other, others) = (np.unique(v, return_inverse=True, return_counts=True) for v in (a, b))
    pairs = np.unique(own * len(others) + other, return_counts=True)[1]
    return max(_entropy(often) + _entropy(others) - _entropy(pairs), 0.0)


def confusion(predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """Number of times that each class (row) was predicted for each label (column).

    Raises:
        DataError: no predictions, another number of labels, or a value that is not a class.
    """
    predicted, true = _whole(predictions, "predictions"), _whole(labels, "labels")
    if len(predicted) != len(true):
        raise DataError(f"Each prediction needs a label; got {len(predicted)} predictions and {len(true)} labels.")
    if min(predicted.min(), true.min()) < 0 or max(predicted.max(), true.max()) >= num_classes:
        raise DataError(f"Predictions and labels must be classes 0 to {num_classes - 1}; some are not.")
    flat = predicted.astype(np.int64) * num_classes + true
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_information(counts: ArrayLike, *, corrected: bool = False) -> Floats:
    """I(T;Y) = H(Y) − H(Y|T) of confusion matrices, of predictions about labels ("A Rate-Distortion…", §4.4).

    It is H(Y) for a matrix that is diagonal up to the order of its rows, and 0 for a constant prediction. It is
    symmetric in T and Y.

    Args:
        counts: (…, predictions, labels), not negative, with a positive sum; or probabilities.
        corrected: subtract the bias to first order, (#T + #Y − #TY − 1)/2n with the numbers of values and pairs that
            occur (Miller 1955). Only for counts with n well above #TY; the result may be negative.

    Returns:
        One number for each matrix, in nats.

    Raises:
        DataError: no matrices, or counts that are negative, not finite or all 0.
    """
    c = np.asarray(counts, dtype=np.float64)
    if c.ndim < 2 or not np.isfinite(c).all() or (c < 0.0).any() or not (c.sum((-2, -1)) > 0.0).all():
        raise DataError(
            "A confusion matrix, predictions × labels, needs finite counts that are not negative nor all 0; got "
            f"{c.shape}."
        )
    rows, columns, total = c.sum(-1), c.sum(-2), c.sum((-2, -1))
    # from counts rather than frequencies: what is 0 in theory is then 0 up to rounding of integers
    nats = xlogy(c, c).sum((-2, -1)) - xlogy(rows, rows).sum(-1) - xlogy(columns, columns).sum(-1)
    found: Floats = np.maximum((nats + xlogy(total, total)) / total, 0.0)
    if corrected:
        seen = (rows > 0.0).sum(-1) + (columns > 0.0).sum(-1) - (c > 0.0).sum((-2, -1)) - 1
        found = found + seen / (2.0 * total)
    return found


def _entropy(counts: Integers) -> float:
    n = counts.sum()
    return max(float(np.log(n) - xlogy(counts, counts).sum() / n), 0.0)


def _whole(values: ArrayLike, what: str) -> Integers:
    numbers = np.asarray(values)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iub":
        raise DataError(f"The {what} must be a row of integers, at least one; got {numbers.dtype} of {numbers.shape}.")
    return numbers
