"""Variational bounds on f-divergences between a joint distribution P and a product Q, by a critic of pairs (x, y).

The critic v(x, y) is always a log-density-ratio: the optimum of every bound is v = ln dP/dQ, up to a constant for
Donsker-Varadhan and up to any g(x) for the energy-based form. The output activation of f-GAN (Nowozin et al. 2016) is
then T = f'(e^v), which always lies in the domain of the convex conjugate f*, and f*(T) = e^v·f'(e^v) − f(e^v) by
Young's equality. "Guess First" derives classifiers from these bounds (eqs. 1, 2, 4, 5).

All bounds are computed at least in float32, in nats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import softplus

from isthmus.information.gaussians import float32_at_least

LN_2 = math.log(2.0)
CAP = 20.0
"""In exponentials a critic with |v| > 20 is replaced by 20 + ln(1 + |v| − 20), with its sign, to prevent overflow.

Bounds hold for every critic, so they remain bounds. The optimum does not change: the ratio to uniform labels is at most
the number of classes, far below e^20.
"""

DivergenceName = Literal["js", "kl", "reverse_kl", "pearson", "squared_hellinger", "total_variation"]


def tamed(critic: Tensor) -> Tensor:
    """The critic with compressed extremes (:data:`CAP`): strictly increasing and once differentiable."""
    beyond = (critic.abs() - CAP).clamp(min=0.0)
    return torch.where(beyond > 0.0, critic.sign() * (CAP + beyond.log1p()), critic)


@dataclass(frozen=True)
class Divergence:
    """An f-divergence D(P‖Q) = E_Q[f(dP/dQ)], and its bound E_P[T] − E_Q[f*(T)] with T = ``activation(v)``.

    Attributes:
        f: convex function of the ratio r > 0, f(1) = 0.
        activation: T of the critic v, in the domain of f*; f'(e^v) where f' exists.
        conjugate: f*(T(v)) as a function of v, which avoids rounding of T.
        log_ratio: ln dP/dQ as a function of v at the optimum; None if the optimum only determines whether the ratio
            exceeds 1.
    """

    name: DivergenceName
    f: Callable[[Tensor], Tensor]
    activation: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]
    log_ratio: Callable[[Tensor], Tensor] | None = tamed


DIVERGENCES: dict[str, Divergence] = {
    each.name: each
    for each in (
        # 2·JSD(P, Q), the GAN's: E_P[ln σ(v)] + E_Q[ln(1 − σ(v))] + ln 4
        Divergence(
            "js",
            lambda r: r * r.log() - (r + 1.0) * ((r + 1.0) / 2.0).log(),
            lambda v: LN_2 - softplus(-v),
            lambda v: softplus(v) - LN_2,
            lambda v: v,
        ),
        # KL(P‖Q); the bound of Nguyen, Wainwright & Jordan 2010
        Divergence("kl", lambda r: r * r.log(), lambda v: 1.0 + tamed(v), lambda v: tamed(v).exp()),
        # KL(Q‖P)
        Divergence("reverse_kl", lambda r: -r.log(), lambda v: -(-tamed(v)).exp(), lambda v: tamed(v) - 1.0),
        # Pearson's χ², E_Q[(r − 1)²]
        Divergence(
            "pearson",
            lambda r: (r - 1.0).square(),
            lambda v: 2.0 * (tamed(v).exp() - 1.0),  # torch's expm1 has the gradient expm1(v) + 1, which rounds to 0
            lambda v: (2.0 * tamed(v)).exp() - 1.0,
        ),
        # E_Q[(√r − 1)²], in [0, 2]
        Divergence(
            "squared_hellinger",
            lambda r: (r.sqrt() - 1.0).square(),
            lambda v: -(-tamed(v) / 2.0).expm1(),
            lambda v: (tamed(v) / 2.0).expm1(),
        ),
        # ½·E_Q|r − 1|; f* is the identity on [−½, ½]
        Divergence(
            "total_variation",
            lambda r: 0.5 * (r - 1.0).abs(),
            lambda v: 0.5 * (0.5 * v).tanh(),
            lambda v: 0.5 * (0.5 * v).tanh(),
            None,
        ),
    )
}


@dataclass(frozen=True)
class Pairs:
    """A critic of every pair (x, y), and the probability of each pair under P and under Q.

    Attributes:
        critic: v(x, y), at least in float32.
        joint: p(x, y), summing to 1.
        product: q(x, y) = p(x)·q(y), summing to 1 and positive.
    """

    critic: Float[Tensor, "x y"]
    joint: Float[Tensor, "x y"]
    product: Float[Tensor, "x y"]

    @classmethod
    def of_batch(cls, scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Pairs:
        """The n true pairs of a batch against all n·classes pairs, including the true ones ("Guess First", §2.2).

        Labels are uniform under Q, whatever their frequencies under P. So dP/dQ is ``classes``·p(y|x), and the softmax
        of its logarithm is the posterior.
        """
        critic = float32_at_least(scores)
        n, classes = critic.shape
        joint = torch.zeros_like(critic).scatter_(1, labels[:, None].long(), 1.0 / n)
        return cls(critic, joint, torch.full_like(critic, 1.0 / (n * classes)))

    @classmethod
    def of_table(cls, critic: Float[Tensor, "x y"], joint: Float[Tensor, "x y"]) -> Pairs:
        """P is a joint distribution, and Q the product of its marginals."""
        return cls(float32_at_least(critic), joint, joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True))

    def expected(self, values: Float[Tensor, "x y"]) -> Float[Tensor, ""]:
        """Expectation under P."""
        return (self.joint * values).sum()


def convex_conjugate(divergence: Divergence, pairs: Pairs) -> Float[Tensor, ""]:
    """E_P[T] − E_Q[f*(T)], at most D(P‖Q) for every critic ("Guess First", eq. 1; eq. 2 is js without its ln 4)."""
    under_product = (pairs.product * divergence.conjugate(pairs.critic)).sum()
    return pairs.expected(divergence.activation(pairs.critic)) - under_product


def donsker_varadhan(pairs: Pairs) -> Float[Tensor, ""]:
    """E_P[v] − ln E_Q[e^v], at most KL(P‖Q) for every critic ("Guess First", eq. 4), and invariant to a constant in v.

    The mean inside the logarithm is over all pairs of a batch, so the estimate depends on the batch size.
    """
    return pairs.expected(pairs.critic) - (pairs.critic + pairs.product.log()).flatten().logsumexp(0)


def energy_based(pairs: Pairs) -> Float[Tensor, ""]:
    """E_P[v] − E_x[ln E_q(y)[e^v]], at most KL(P‖Q) for every critic ("Guess First", eqs. 5 and 6).

    Invariant to terms of v that depend on x alone. With uniform q(y) it is exactly ln(classes) minus the cross-entropy
    of softmax_y v.
    """
    rows = pairs.product.sum(1)
    inner = (pairs.critic + (pairs.product / rows[:, None]).log()).logsumexp(1)
    return pairs.expected(pairs.critic) - (rows * inner).sum()
