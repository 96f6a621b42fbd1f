"""The exact information bottleneck of a table p(x, y), by Blahut-Arimoto iterations in float64.

IB minimises I(X;Z) − β·I(Y;Z) over encoders p(z|x) (Tishby et al. 1999; Fischer 2020, eq. 16). CEB minimises
I(X;Z|Y) − γ·I(Y;Z) (Fischer 2020, eq. 5), which is the same for codes of X alone at β = γ + 1 = 1 + e^ρ. The problem is
not convex in the encoder: iterations descend to a stationary point, so the best of several starts is kept. One start is
a constant code, with an objective of 0. (Tests compare the result with the global optimum of a linear program on small
tables; for large ones it is not proven to be global.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr, softmax

from isthmus.core.errors import ConfigError
from isthmus.core.tradeoff import Rho
from isthmus.information.tables import Floats, conditional_mutual_information, distribution, mutual_information


@dataclass(frozen=True)
class Search:
    """Options of the search for an optimal encoder.

    Attributes:
        codes: number of values of Z; None means that of X, which suffices for the optimum.
        restarts: number of starts besides the constant encoder: one that separates the values of X, then random ones.
        seed: of the random encoders.
        tolerance: a start has converged if one iteration lowers the objective by at most this many nats, multiplied by
            β if β > 1.
        max_iterations: maximum number of iterations.
    """

    codes: int | None = None
    restarts: int = 8
    seed: int = 0
    tolerance: float = 1e-13
    max_iterations: int = 20_000

    def __post_init__(self) -> None:
        if self.codes is not None and self.codes < 1:
            raise ConfigError(f"A code needs at least one value; got codes={self.codes}.")
        if self.restarts < 1 or self.max_iterations < 1:
            raise ConfigError(
                f"restarts and max_iterations must be at least 1; got restarts={self.restarts} and "
                f"max_iterations={self.max_iterations}."
            )
        if not 0.0 <= self.tolerance < math.inf:
            raise ConfigError(f"tolerance must be finite and not negative; got {self.tolerance}.")


@dataclass(frozen=True, eq=False)
class TabularCode:
    """The best code found. Information is in nats and exact for this encoder.

    Attributes:
        encoder: p(z|x), values of X × codes; rows sum to 1. Values of X that never occur have p(z).
        relevance_weight: β, the weight on I(Y;Z); CEB's γ is β − 1.
        i_xz: I(X;Z).
        i_yz: I(Y;Z).
        i_xz_given_y: I(X;Z|Y), the residual information.
        objective: I(X;Z) − β·I(Y;Z), which is CEB's I(X;Z|Y) − γ·I(Y;Z); never positive.
        iterations: number of iterations, from all starts in parallel.
        converged: whether this code has converged.
    """

    encoder: Floats
    relevance_weight: float
    i_xz: float
    i_yz: float
    i_xz_given_y: float
    objective: float
    iterations: int
    converged: bool


def information_bottleneck(joint: ArrayLike, relevance_weight: float, search: Search = Search()) -> TabularCode:
    """The encoder that minimises I(X;Z) − β·I(Y;Z) (Fischer 2020, eq. 16).

    Args:
        joint: p(x, y), values of X × values of Y.
        relevance_weight: β > 0, the weight on I(Y;Z). Up to β = 1, and often beyond, the best code is constant:
            see :mod:`isthmus.information.learnability`. Above about 1e13, rounding of the divergences decides
            between equally good codes.

    Raises:
        DataError: ``joint`` is not a distribution over pairs.
        ConfigError: β is not positive or not finite.
    """
    return _solve(distribution(joint), _weight(relevance_weight), search)


def conditional_entropy_bottleneck(joint: ArrayLike, rho: float, search: Search = Search()) -> TabularCode:
    """The encoder that minimises I(X;Z|Y) − e^ρ·I(Y;Z) (Fischer 2020, eqs. 5 and 17): IB at β = 1 + e^ρ.

    Args:
        joint: p(x, y), values of X × values of Y.
        rho: the trade-off ρ = ln γ, finite. If X determines Y, every ρ gives the MNI point, I(X;Z) = I(Y;Z) = H(Y).

    Raises:
        DataError: ``joint`` is not a distribution over pairs.
        ConfigError: ρ is not finite.
    """
    return information_bottleneck(joint, _weight_of(rho), search)


def ib_curve(
    joint: ArrayLike, relevance_weights: Sequence[float], search: Search = Search()
) -> tuple[TabularCode, ...]:
    """The bottleneck at every β, in the order given.

    Solved from the largest β to the smallest, each from the starts of ``search`` and from the previous code. Codes
    merge as β decreases, but merged codes do not split as β increases.

    Raises:
        DataError: ``joint`` is not a distribution over pairs.
        ConfigError: no β, or one that is not positive or not finite.
    """
    p = distribution(joint)
    if not len(relevance_weights):
        raise ConfigError("A curve needs at least one weight; got none.")
    weights = [_weight(weight) for weight in relevance_weights]
    found: dict[float, TabularCode] = {}
    before: TabularCode | None = None
    for weight in sorted(set(weights), reverse=True):
        before = found[weight] = _solve(p, weight, search, before)
    return tuple(found[weight] for weight in weights)


def ceb_curve(joint: ArrayLike, rhos: Sequence[float], search: Search = Search()) -> tuple[TabularCode, ...]:
    """The conditional entropy bottleneck at every ρ, in the order given; see :func:`ib_curve`.

    Raises:
        DataError: ``joint`` is not a distribution over pairs.
        ConfigError: no ρ, or one that is not finite.
    """
    return ib_curve(joint, [_weight_of(rho) for rho in rhos], search)


def _weight(relevance_weight: float) -> float:
    if not 0.0 < relevance_weight < math.inf:
        raise ConfigError(f"The weight on I(Y;Z) must be positive and finite; got {relevance_weight}.")
    return float(relevance_weight)


def _weight_of(rho: float) -> float:
    if not math.isfinite(rho):
        raise ConfigError(f"rho must be finite; got {rho}. Without a bottleneck (rho=inf) the best code is X itself.")
    return Rho(rho).relevance_weight


@dataclass(frozen=True)
class _Problem:
    """One table without the values of X that never occur. Encoders are starts × x × codes."""

    p_x: Floats
    p_y_x: Floats
    beta: float

    def decoder(self, encoder: Floats) -> tuple[Floats, Floats]:
        """p(z), starts × codes, and p(y|z), starts × codes × y; p(y) for codes that never occur."""
        p_xz = self.p_x[:, None] * encoder
        p_z = p_xz.sum(1)
        p_yz = np.swapaxes(p_xz, 1, 2) @ self.p_y_x
        sent = p_yz.sum(-1, keepdims=True)
        unsent = np.broadcast_to(self.p_x @ self.p_y_x, p_yz.shape)
        return p_z, np.divide(p_yz, sent, out=unsent.copy(), where=sent > 0)

    def update(self, p_z: Floats, p_y_z: Floats) -> Floats:
        """p(z|x) ∝ p(z)·exp(−β·KL(p(y|x) ‖ p(y|z))); an infinite divergence or p(z) = 0 gives 0, never NaN."""
        divergence = rel_entr(self.p_y_x[None, :, None, :], p_y_z[:, None]).sum(-1)
        with np.errstate(divide="ignore"):
            logits = np.log(p_z)[:, None] - self.beta * divergence
        encoder: Floats = softmax(logits, axis=-1)
        return encoder

    def objective(self, encoder: Floats, p_z: Floats, p_y_z: Floats) -> Floats:
        """I(X;Z) − β·I(Y;Z) of each start."""
        i_xz = (self.p_x[:, None] * rel_entr(encoder, p_z[:, None])).sum((1, 2))
        i_yz = (p_z[..., None] * rel_entr(p_y_z, self.p_x @ self.p_y_x)).sum((1, 2))
        values: Floats = i_xz - self.beta * i_yz
        return values


def _solve(joint: Floats, beta: float, search: Search, before: TabularCode | None = None) -> TabularCode:
    p_x = joint.sum(1)
    occurs = p_x > 0
    problem = _Problem(p_x[occurs], joint[occurs] / p_x[occurs, None], beta)
    encoder = _starts(int(occurs.sum()), search.codes or joint.shape[0], search)
    if before is not None:
        encoder = np.concatenate([encoder, before.encoder[None, occurs]])
    tolerance = search.tolerance * max(beta, 1.0)
    decoder = problem.decoder(encoder)
    value = problem.objective(encoder, *decoder)
    moving = np.ones(len(value), dtype=bool)
    iterations = 0
    while moving.any() and iterations < search.max_iterations:
        encoder = problem.update(*decoder)
        decoder = problem.decoder(encoder)
        last, value = value, problem.objective(encoder, *decoder)
        moving = last - value > tolerance
        iterations += 1
    # the constant code is first; another one must be better by more than the tolerance
    best = int(np.argmin(value + tolerance * (np.arange(len(value)) > 0)))
    whole = np.tile(decoder[0][best] / decoder[0][best].sum(), (len(p_x), 1))
    whole[occurs] = encoder[best]
    return _described(joint, whole, beta, iterations, converged=not moving[best])


def _starts(values: int, codes: int, search: Search) -> Floats:
    """A constant encoder, one that separates X but gives each code a positive probability, and random ones."""
    generator = np.random.default_rng(search.seed)
    silent = np.eye(codes)[np.zeros(values, dtype=int)]
    apart = 0.9 * np.eye(codes)[np.arange(values) % codes] + 0.1 / codes
    drawn = generator.dirichlet(np.ones(codes), size=(search.restarts - 1, values))
    return np.concatenate([silent[None], apart[None], drawn])


def _described(joint: Floats, encoder: Floats, beta: float, iterations: int, converged: bool) -> TabularCode:
    i_xz = mutual_information(joint.sum(1)[:, None] * encoder)
    i_yz = mutual_information(joint.T @ encoder)
    residual = conditional_mutual_information(joint[:, :, None] * encoder[:, None, :])
    return TabularCode(encoder, beta, i_xz, i_yz, residual, i_xz - beta * i_yz, iterations, converged)
