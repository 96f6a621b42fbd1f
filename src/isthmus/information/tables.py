"""Discrete distributions as tables: validation, and exact information quantities in nats.

A table p(x, y) has one row per value of X and one column per value of Y. Zeros are allowed anywhere (0·ln 0 = 0).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr, xlogy

from isthmus.core.errors import ConfigError, DataError

Floats = NDArray[np.float64]

SLACK = 1e-6
"""Tolerance of the sum of a table, for tables in float32. Tables within it are divided by their sum."""


def distribution(table: ArrayLike, dims: int = 2) -> Floats:
    """A checked table of ``dims`` dimensions in float64 that sums to 1.

    Raises:
        DataError: not numbers, another number of dimensions, an empty table, negative or non-finite entries, or a sum
            that differs from 1 by more than ``SLACK``.
    """
    try:
        p = np.asarray(table, dtype=np.float64)
    except (TypeError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise DataError(f"A table of probabilities must be an array of numbers: {reason}.") from None
    if p.ndim != dims or not p.size:
        raise DataError(f"A table of probabilities needs {dims} dimensions and at least one entry; got {p.shape}.")
    if not np.isfinite(p).all() or (p < 0).any():
        raise DataError("Probabilities must be finite and not negative; some are not.")
    total = p.sum()
    if abs(total - 1.0) > SLACK:
        raise DataError(f"Probabilities must sum to 1; these sum to {total:g}. Divide a table of counts by its sum.")
    scaled: Floats = p / total
    return scaled


def noisy_labels(classes: int, noise: float) -> Floats:
    """p(x, y) for equally frequent classes X, where Y is another class than X with probability ``noise``.

    All other classes are equally likely. Two classes give the binary flip.

    Returns:
        classes × classes.

    Raises:
        ConfigError: fewer than two classes, or a noise outside [0, 1].
    """
    check_noise(classes, noise)
    p = np.full((classes, classes), noise / (classes - 1))
    np.fill_diagonal(p, 1.0 - noise)
    return p / classes


def check_noise(classes: int, noise: float) -> None:
    """Check the arguments of :func:`noisy_labels`.

    Raises:
        ConfigError: fewer than two classes, or a noise outside [0, 1].
    """
    if classes < 2 or not 0.0 <= noise <= 1.0:
        raise ConfigError(f"classes must be at least 2 and noise in [0, 1]; got {classes} classes and noise {noise}.")


def entropy(table: ArrayLike) -> float:
    """H of a one-dimensional table, in nats.

    Raises:
        DataError: not a distribution, as for :func:`distribution`.
    """
    return float(entr(distribution(table, dims=1)).sum())


def mutual_information(table: ArrayLike) -> float:
    """I(X;Y) of p(x, y), rows × columns, in nats.

    Raises:
        DataError: not a distribution, as for :func:`distribution`.
    """
    return float(_mutual_information(distribution(table)))


def conditional_mutual_information(table: ArrayLike) -> float:
    """I(X;Z|Y) of p(x, y, z), in nats, conditioned on the **second** dimension.

    Raises:
        DataError: not a distribution, as for :func:`distribution`.
    """
    p = np.moveaxis(distribution(table, dims=3), 1, 0)
    p_y = p.sum((1, 2))
    given = p[p_y > 0] / p_y[p_y > 0, None, None]
    return math.fsum(p_y[p_y > 0] * _mutual_information(given))


def _mutual_information(p: Floats) -> Floats:
    """Mutual information of each table in the last two dimensions. Separate logarithms avoid underflow of products."""
    rows, columns = p.sum(-1, keepdims=True), p.sum(-2, keepdims=True)
    terms = xlogy(p, p) - xlogy(p, rows) - xlogy(p, columns)
    information: Floats = np.maximum(terms.sum((-2, -1)), 0.0)
    return information
