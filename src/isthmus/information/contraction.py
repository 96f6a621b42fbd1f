"""The contraction coefficient η_KL of a table p(x, y): the largest I(Y;Z) per I(X;Z) of any code Z.

For any Z that sees Y only through X,

    η_KL = sup over Z ← X → Y of I(Y;Z) / I(X;Z) = sup over r ≠ p_X of D(r_Y ‖ p_Y) / D(r ‖ p_X),

where r_Y is the output distribution of the channel p(y|x) for r (Fischer 2020, "The Conditional Entropy Bottleneck",
equation 2; Anantharam, Gohari, Kamath & Nair 2013). Its inverse is the weight β below which no code has a lower
I(X;Z) − β·I(Y;Z) than a constant. It lies between ρ_m², the squared maximal correlation
(:mod:`isthmus.information.learnability`), and the largest total variation between two rows p(y|x).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize
from scipy.special import log_softmax, rel_entr, softmax

from isthmus.core.errors import DataError
from isthmus.information.learnability import learnability
from isthmus.information.tables import Floats, distribution

STEPS = 200
"""Maximum steps of each ascent. Ascents converge slowly where the ratio is flat, so the best are refined afterwards."""
REFINED = 4
"""Number of ascents, the best ones, that are refined by L-BFGS."""
NEAR = 1e-6
"""At smaller divergences the ratio is dominated by rounding; its limit there is at most ρ_m²."""


def kl_contraction(joint: ArrayLike, starts: int = 64, seed: int = 0) -> float:
    """η_KL of p(x, y), in [0, 1]: 0 if X and Y are independent, 1 if X determines Y.

    Ascends the ratio of divergences from every value of X, from every p(x|y) and p(x|not y), and from random
    distributions. Each ascent is monotone, but the ratio has several local maxima. The result is the largest one found,
    a lower bound on the supremum (converged to about 1e-6), and at least ρ_m², the ratio's supremum near p_X.

    Args:
        joint: p(x, y), values of X × values of Y.
        starts: number of random distributions.
        seed: of the random distributions.

    Raises:
        DataError: ``joint`` is not a distribution over pairs, or only one value of X occurs, so that I(X;Z) is 0.
    """
    p = distribution(joint)
    p = p[p.sum(1) > 0][:, p.sum(0) > 0]
    if len(p) < 2:
        raise DataError("η_KL is a ratio of I(Y;Z) and I(X;Z); at least two values of X must occur.")
    bound = learnability(p).maximal_correlation ** 2
    return min(max(bound, _ascend(_starts(p, starts, seed), p)), 1.0)


def _starts(p: Floats, starts: int, seed: int) -> Floats:
    """Distributions over X, one in each row."""
    given, seen = p.sum(1), p.sum(0)
    posteriors = (p / seen).T
    others = np.clip(given - seen[:, None] * posteriors, 0.0, None)[seen < 1.0 - 1e-12]
    generator = np.random.default_rng(seed)
    drawn = [generator.dirichlet(np.full(len(p), each)) for each in np.geomspace(0.1, 10.0, max(starts, 1))[:starts]]
    rows = np.concatenate([np.eye(len(p)), posteriors, others, *(each[None] for each in drawn)])
    whole: Floats = rows / rows.sum(1, keepdims=True)
    return whole


def _ascend(r: Floats, p: Floats) -> float:
    """The largest ratio that an ascent from one of the rows reaches.

    Dinkelbach's method: with η the current ratio, D(r_Y‖p_Y) − η·D(r‖p_X) is 0, and every r at which this difference is
    positive has a larger ratio. The first divergence is convex in r, so its tangent is a lower bound. The tangent minus
    η·D(r‖p_X) has its maximum at r(x) ∝ p(x)·exp(Σ_y p(y|x)·ln(r(y)/p(y)) / η).
    """
    given, output = p.sum(1), p.sum(0)
    channel = p / given[:, None]
    best, ends, rows = np.zeros(len(r)), r.copy(), np.arange(len(r))
    for _ in range(STEPS):
        sent, below = r @ channel, rel_entr(r, given).sum(1)
        ratio = rel_entr(sent, output).sum(1) / np.maximum(below, NEAR)
        rising = (below >= NEAR) & (ratio > best[rows] * (1.0 + 1e-12))
        if not rising.any():
            break
        rows, sent = rows[rising], sent[rising]
        best[rows], ends[rows] = ratio[rising], r[rising]
        # 1e-300 if r never gives an output: values of X with that output get probability 0
        pull = np.log(np.maximum(sent / output, 1e-300)) @ channel.T
        r = softmax(np.log(given) + pull / best[rows][:, None], axis=1)
    refined = [_refined(ends[row], given, channel) for row in np.argsort(best)[-REFINED:]]
    return float(max(best.max(), *refined))


def _refined(r: Floats, given: Floats, channel: Floats) -> float:
    """The ratio at the local maximum near r, found by gradient ascent over the logits of r."""
    output = given @ channel

    def negative(logits: Floats) -> tuple[float, Floats]:
        log_r = log_softmax(logits)
        r = np.exp(log_r)
        sent, difference = r @ channel, log_r - np.log(given)
        above, below = rel_entr(sent, output).sum(), r @ difference
        if below < NEAR:
            return 0.0, np.zeros_like(r)
        slope = np.log(np.maximum(sent / output, 1e-300)) @ channel.T - above / below * difference
        return -above / below, -r * (slope - r @ slope) / below

    return -float(minimize(negative, np.log(np.maximum(r, 1e-30)), jac=True, method="L-BFGS-B", tol=1e-14).fun)
