"""The trade-off at which learning starts: the onset of the bottleneck (Wu, Fischer, Chuang & Tegmark 2019).

A constant code is a stationary point of I(X;Z) − β·I(Y;Z) at every β. It is unstable if β exceeds

    β₀ = inf over h of Var h(X) / Var E[h(X)|Y] = 1/ρ_m²,

with ρ_m the maximal correlation of X and Y: the second singular value of p(x, y)/√(p(x)·p(y)). (Not the trade-off ρ.)
Above β₀ the optimal code is not constant. Below it a constant code is a local optimum; the global one may still be
another, as for ten classes with uniform noise (a first-order transition). For the binary flip β₀ is exact.
Every h and every subset of X gives an upper bound on β₀.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from isthmus.core.errors import ConfigError, DataError
from isthmus.information.tables import Floats, distribution


@dataclass(frozen=True, eq=False)
class Learnability:
    """The onset of learning of one table.

    Attributes:
        maximal_correlation: ρ_m in [0, 1]: 0 where X and Y are independent, 1 where they share a part for certain.
        function: the h(x) that is learned first, one number per value of X, with E h = 0 and E h² = 1; 0 at values
            that never occur, and throughout where nothing is to be learned.
    """

    maximal_correlation: float
    function: Floats

    @property
    def relevance_weight(self) -> float:
        """β₀ = 1/ρ_m²; at least 1, and inf where X and Y are independent."""
        return 1.0 / self.maximal_correlation**2 if self.maximal_correlation else math.inf

    @property
    def rho(self) -> float:
        """β₀ as a trade-off, ln(β₀ − 1): −inf where β₀ = 1, inf where X and Y are independent."""
        return math.log(self.relevance_weight - 1.0) if self.relevance_weight > 1.0 else -math.inf


def learnability(joint: ArrayLike) -> Learnability:
    """The onset of learning, from the singular values of p(x, y)/√(p(x)·p(y)).

    Singular values are exact to about the machine's precision times the size of the table; correlations that near to
    0 or 1 are taken to be 0 or 1.

    Args:
        joint: p(x, y), values of X × values of Y.

    Raises:
        DataError: ``joint`` is no distribution over pairs.
    """
    p = distribution(joint)
    p_x, p_y = p.sum(1), p.sum(0)
    root_x, root_y = np.sqrt(p_x), np.sqrt(p_y)
    occurs, seen = p_x > 0, p_y > 0
    scaled = p[np.ix_(occurs, seen)] / root_x[occurs, None] / root_y[seen]
    # The first pair of singular vectors is √p(x), √p(y) with value 1; taking it off leaves the second one on top.
    left, values, _ = np.linalg.svd(scaled - np.outer(root_x[occurs], root_y[seen]), full_matrices=False)
    rounding = 4.0 * np.finfo(np.float64).eps * max(scaled.shape)
    correlation = float(values[0])
    function = np.zeros(len(p_x))
    if correlation <= rounding:
        return Learnability(0.0, function)
    function[occurs] = left[:, 0] / root_x[occurs]
    return Learnability(1.0 if correlation >= 1.0 - rounding else correlation, function)


def threshold_of_function(joint: ArrayLike, function: ArrayLike) -> float:
    """β₀[h] = (E h²/(E h)² − 1) / (E_y (E[h|y])²/(E h)² − 1), in its equal form Var h / Var E[h|Y]; at least β₀.

    The second form also holds where E h = 0. Source: Wu et al. 2019, sufficient condition 2.

    Args:
        joint: p(x, y), values of X × values of Y.
        function: h(x), one number per value of X.

    Returns:
        A weight on I(Y;Z); inf if h is independent of Y.

    Raises:
        DataError: ``joint`` is no distribution over pairs; h of another length or not finite; or h constant where
            X occurs, for which β₀[h] is not defined.
    """
    p = distribution(joint)
    h = np.asarray(function, dtype=np.float64)
    p_x, p_y = p.sum(1), p.sum(0)
    if h.shape != p_x.shape or not np.isfinite(h).all():
        raise DataError(f"h is one finite number per value of X ({len(p_x)}); got an array of shape {h.shape}.")
    h = np.where(p_x > 0, h, h[p_x > 0][0])
    width = np.ptp(h)
    if width == 0.0:
        raise DataError("h is the same at every value of X that occurs; a constant has no threshold.")
    h = (h - h.min()) / width  # neither shift nor scale matters, and squares of huge or tiny numbers would be lost
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
        members: bool per value of X.

    Returns:
        A weight on I(Y;Z), at least β₀; inf where Ω and Y are independent.

    Raises:
        DataError: ``joint`` is no distribution over pairs, members are not one bool per value of X, or the subset
            has probability 0 or 1.
    """
    p = distribution(joint)
    inside = np.asarray(members)
    if inside.shape != p.shape[:1] or inside.dtype != bool:
        raise DataError(f"A subset is one bool per value of X ({len(p)}); got {inside.dtype} of shape {inside.shape}.")
    p_x = p.sum(1)
    if not p_x[inside].any() or not p_x[~inside].any():
        raise DataError("A subset must have a probability strictly between 0 and 1.")
    return threshold_of_function(p, inside)


def noise_threshold(classes: int, noise: float) -> float:
    """β₀ of equally frequent classes with uniform noise, 1/(1 − ε·C/(C − 1))²: in closed form.

    The table is that of :func:`isthmus.information.tables.noisy_labels`. For two classes it is 1/(1 − 2ε)², and both
    sides are exact; for more, a code may pay below it already.

    Raises:
        ConfigError: fewer than two classes, or a noise outside [0, 1].
    """
    if classes < 2 or not 0.0 <= noise <= 1.0:
        raise ConfigError(f"Two classes at least, and noise in [0, 1]; got {classes} classes and noise {noise}.")
    correlation = 1.0 - noise * classes / (classes - 1)
    return 1.0 / correlation**2 if correlation else math.inf
