"""Entropy and information of samples of discrete variables, from how often values occur; in nats, x·ln x exact at 0.

These are plug-in (maximum-likelihood) estimates, the exact quantities of the empirical distribution. Of a sample that
is small for the number of values, entropy comes out too small and information too large (Paninski 2003).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import xlogy

from isthmus.core.errors import DataError

Floats = NDArray[np.float64]
Integers = NDArray[np.integer]


def entropy(values: ArrayLike) -> float:
    """Ĥ of n values of one variable: at most ln n, and 0 where they are all the same.

    Raises:
        DataError: no values, or no integers.
    """
    return _entropy(np.unique(_whole(values, "values"), return_counts=True)[1])


def independent_entropy(values: ArrayLike) -> float:
    """Σ Ĥ of each column: an upper bound on the joint entropy of all, which treats them as independent.

    Of images with 8-bit pixels, n × pixels, the conservative bound on H(X) of "A Rate-Distortion Theory of Adversarial
    Examples", §4.2: at most 8 bits (5.55 nats) a pixel, where they are uniform.

    Args:
        values: integers, n × columns.

    Raises:
        DataError: no values, or no integers.
    """
    numbers = np.asarray(values)
    if numbers.ndim != 2 or not numbers.size or numbers.dtype.kind not in "iub":
        raise DataError(f"Integers, examples × columns, and some of either; got {numbers.dtype} of {numbers.shape}.")
    return sum(entropy(column) for column in numbers.T)


def information(first: ArrayLike, second: ArrayLike) -> float:
    """Î(A;B) of n pairs: at most min(Ĥ(A), Ĥ(B)), symmetric, never negative.

    Costs n·ln n, however many values there are. For a table of few values use :func:`confusion_information`.

    Args:
        first, second: integers, used as symbols.

    Raises:
        DataError: no pairs, no integers, or of one more than of the other.
    """
    a, b = _whole(first, "values"), _whole(second, "values")
    if len(a) != len(b):
        raise DataError(f"Information is about pairs of values; got {len(a)} of one and {len(b)} of the other.")
    (_, own, often), (_, other, others) = (np.unique(v, return_inverse=True, return_counts=True) for v in (a, b))
    pairs = np.unique(own * len(others) + other, return_counts=True)[1]
    return max(_entropy(often) + _entropy(others) - _entropy(pairs), 0.0)


def confusion(predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> NDArray[np.int64]:
    """How often each class (row) was predicted for each label (column).

    Raises:
        DataError: no predictions, not as many labels, or one that is not among the classes.
    """
    predicted, true = _whole(predictions, "predictions"), _whole(labels, "labels")
    if len(predicted) != len(true):
        raise DataError(f"Each prediction has a label; got {len(predicted)} and {len(true)}.")
    if min(predicted.min(), true.min()) < 0 or max(predicted.max(), true.max()) >= num_classes:
        raise DataError(f"Predictions and labels are classes 0 to {num_classes - 1}; some are not.")
    flat = predicted.astype(np.int64) * num_classes + true
    return np.bincount(flat, minlength=num_classes**2).reshape(num_classes, num_classes)


def confusion_information(counts: ArrayLike, *, corrected: bool = False) -> Floats:
    """I(T;Y) = H(Y) − H(Y|T) of confusion matrices: what predictions transmit of labels ("A Rate-Distortion…", §4.4).

    H(Y) for a matrix that is diagonal in some order of its rows, 0 for a constant prediction, symmetric in T and Y.

    Args:
        counts: (…, predictions, labels), not negative and some above 0; probabilities will do as well.
        corrected: less its bias to first order, (#T + #Y − #TY − 1)/2n with the numbers of values and pairs that
            occur (Miller 1955). Only for counts, and where n is well above #TY; it may be negative then.

    Returns:
        One number for each matrix, in nats.

    Raises:
        DataError: no matrices, or counts that are negative, not finite or all 0.
    """
    c = np.asarray(counts, dtype=np.float64)
    if c.ndim < 2 or not np.isfinite(c).all() or (c < 0.0).any() or not (c.sum((-2, -1)) > 0.0).all():
        raise DataError(
            f"A confusion matrix has counts from 0 on, of which some are above 0, predictions × labels; got {c.shape}."
        )
    rows, columns, total = c.sum(-1), c.sum(-2), c.sum((-2, -1))
    # from counts rather than shares: what is 0 in theory is so up to rounding of integers
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
        raise DataError(f"The {what} are a row of integers, one at least; got {numbers.dtype} of {numbers.shape}.")
    return numbers
