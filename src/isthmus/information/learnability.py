"""The trade-off at which learning starts (Wu, Fischer, Chuang & Tegmark 2019).

A constant code is a stationary point of I(X;Z) − β·I(Y;Z) at every β. It is unstable if β exceeds

    β₀ = inf over h of Var h(X) / Var E[h(X)|Y] = 1/ρ_m²,

where ρ_m (not the trade-off ρ) is the maximal correlation of X and Y: the second singular value of
p(x, y)/√(p(x)·p(y)). Above β₀ the optimal code is not constant. Below it a constant code is a local optimum; the global
one may still be different, as for ten classes with uniform noise (a first-order transition). For the binary flip β₀ is
exact. Every h and every subset of X gives an upper bound on β₀.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from isthmus.core.errors import DataError
from isthmus.information.tables import Floats, check_noise, distribution


@dataclass(frozen=True, eq=False)
class Learnability:
    """The onset of learning for one table.

    Attributes:
        maximal_correlation: ρ_m in [0, 1]: 0 if X and Y are independent, 1 if they have a common part.
        function: the h(x) that is learned first, one number per value of X, with E h = 0 and E h² = 1; 0 at values that
            never occur, and everywhere if X and Y are independent.
    """

    maximal_correlation: float
    function: Floats

    @property
    def relevance_weight(self) -> float:
        """β₀ = 1/ρ_m²; at least 1, and inf if X and Y are independent."""
        return 1.0 / self.maximal_correlation**2 if self.maximal_correlation else math.inf

    @property
    def rho(self) -> float:
        """β₀ as a trade-off, ln(β₀ − 1): −inf if β₀ = 1, inf if X and Y are independent."""
        return math.log(self.relevance_weight - 1.0) if self.relevance_weight > 1.0 else -math.inf


def learnability(joint: ArrayLike) -> Learnability:
    """The onset of learning, from the singular values of p(x, y)/√(p(x)·p(y)).

    Singular values are exact to about machine precision times the size of the table; correlations within that distance
    of 0 or 1 are set to 0 or 1.

    Args:
        joint: p(x, y), values of X × values of Y.

    Raises:
        DataError: ``joint`` is not a distribution over pairs.
    """
    p = distribution(joint)
    p_x, p_y = p.sum(1), p.sum(0)
    root_x, root_y = np.sqrt(p_x), np.sqrt(p_y)
    occurs, seen = p_x > 0, p_y > 0
    scaled = p[np.ix_(occurs, seen)] / root_x[occurs, None] / root_y[seen]
    # The first pair of singular vectors is √p(x), √p(y) with value 1; without it the second one is the largest.
    left, values, _ = np.linalg.svd(scaled - np.outer(root_x[occurs], root_y[seen]), full_matrices=False)
    rounding = 4.0 * np.finfo(np.float64).eps * max(scaled.shape)
    correlation = float(values[0])
    function = np.zeros(len(p_x))
    if correlation <= rounding:
        return Learnability(0.0, function)
    function[occurs] = left[:, 0] / root_x[occurs]
    return Learnability(1.0 if correlation >= 1.0 - rounding else correlation, function)


def threshold_of_function(joint: ArrayLike, function: ArrayLike) -> float:
    """β₀[h] = (E h²/(E h)² − 1) / (E_y (E[h|y])²/(E h)² − 1) = Var h / Var E[h|Y]; at least β₀.

    The second form also holds if E h = 0. Source: Wu et al. 2019, sufficient condition 2.

    Args:
        joint: p(x, y), values of X × values of Y.
        function: h(x), one number per value of X.

    Returns:
        A weight on I(Y;Z); inf if h is independent of Y.

    Raises:
        DataError: ``joint`` is not a distribution over pairs; h has another length or is not finite; or h is
            constant at all values of X that occur, so that β₀[h] is undefined.
    """
    p = distribution(joint)
    h = np.asarray(function, dtype=np.float64)
    p_x, p_y = p.sum(1), p.sum(0)
    if h.shape != p_x.shape or not np.isfinite(h).all():
        raise DataError(f"h needs one finite number per value of X ({len(p_x)}); got an array of shape {h.shape}.")
    h = np.where(p_x > 0, h, h[p_x > 0][0])
    width = np.ptp(h)
    if width == 0.0:
        raise DataError("h is constant at all values of X that occur; a constant has no threshold.")
    h = (
        h - h.min()
    ) / width  # β₀[h] is invariant to shift and scale; squares of huge or tiny numbers would overflow or underflow
    h = h - p_x @ h
    seen = p_y > 0
    means = (p[:, seen] / p_y[seen]).T @ h
    explained = p_y[seen] @ means**2
    variance = p_x @ h**2
    rounding = (4.0 * np.finfo(np.float64).eps * max(p.shape)) ** 2
    return float(variance / explained) if explained > rounding * variance else math.inf


def threshold_of_subset(joint: ArrayLike, members: ArrayLike) -> float:
    """β₀ of a subset Ω of X: (1/p(Ω) − 1) / (E_{y|Ω}[p(y|Ω)/p(y)] − 1), which is β₀[h] for the indicator of Ω.

    Small for subsets that are typical, confident and imbalanced. Source: Wu et al. 2019, sufficient condition 3.

    Args:
        joint: p(x, y), values of X × values of Y.
        members: one bool per value of X.

    Returns:
        A weight on I(Y;Z), at least β₀; inf if Ω and Y are independent.

    Raises:
        DataError: ``joint`` is not a distribution over pairs, members are not one bool per value of X, or the subset
            has probability 0 or 1.
    """
    p = distribution(joint)
    inside = np.asarray(members)
    if inside.shape != p.shape[:1] or inside.dtype != bool:
        raise DataError(
            f"members needs one bool per value of X ({len(p)}); got {inside.dtype} of shape {inside.shape}."
        )
    p_x = p.sum(1)
    if not p_x[inside].any() or not p_x[~inside].any():
        raise DataError("A subset must have a probability strictly between 0 and 1.")
    return threshold_of_function(p, inside)


def noise_threshold(classes: int, noise: float) -> float:
    """β₀ of equally frequent classes with uniform noise, 1/(1 − ε·C/(C − 1))².

    The table is that of :func:`isthmus.information.tables.noisy_labels`. For two classes it is 1/(1 − 2ε)²
    and exact; for more classes, a code may be better than a constant already below it.

    Raises:
        ConfigError: fewer than two classes, or a noise outside [0, 1].
    """
    check_noise(classes, noise)
    correlation = 1.0 - noise * classes / (classes - 1)
    return 1.0 / correlation**2 if correlation else math.inf
