"""Variational bounds on f-divergences between a joint distribution P and a product Q, by a critic of pairs (x, y).

The critic v(x, y) is always a log-density-ratio: every bound is written so that its optimum is v = ln dP/dQ, up to a
constant for Donsker-Varadhan and up to any g(x) for the energy-based form. What f-GAN calls the output activation
(Nowozin et al. 2016) is then T = f'(e^v), which lies in the domain of the convex conjugate f* by itself, and
f*(T) = e^v·f'(e^v) − f(e^v) by Young's equality. "Guess First" derives classifiers from these bounds (eqs. 1, 2, 4, 5).

All are computed in float32 at least, in nats.
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
"""Up to |v| = 20 a critic enters an exponential as it is, beyond that as 20 + ln(1 + |v| − 20) with its sign.

Whatever critic is put into a bound, it stays a bound. And the optimum is not touched: against labels that are drawn
uniformly a ratio cannot exceed the number of classes, which is far below e^20. Without it one wild score overflows.
"""

DivergenceName = Literal["js", "kl", "reverse_kl", "pearson", "squared_hellinger", "total_variation"]


def tamed(critic: Tensor) -> Tensor:
    """The critic with its extremes drawn in (:data:`CAP`): strictly increasing, once differentiable."""
    beyond = (critic.abs() - CAP).clamp(min=0.0)
    return torch.where(beyond > 0.0, critic.sign() * (CAP + beyond.log1p()), critic)


@dataclass(frozen=True)
class Divergence:
    """An f-divergence D(P‖Q) = E_Q[f(dP/dQ)], and its bound E_P[T] − E_Q[f*(T)] with T = ``activation(v)``.

    Attributes:
        f: of the ratio r > 0, convex, f(1) = 0.
        activation: T of the critic v, in the domain of f*; f'(e^v) where f' exists.
        conjugate: f*(T(v)), from v itself, which loses no digits on the way.
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
    """A critic on every pair (x, y), and how likely each pair is under P and under Q.

    Attributes:
        critic: v(x, y), in float32 at least.
        joint: p(x, y), summing to 1.
        product: q(x, y) = p(x)·q(y), summing to 1 and positive.
    """

    critic: Float[Tensor, "x y"]
    joint: Float[Tensor, "x y"]
    product: Float[Tensor, "x y"]

    @classmethod
    def of_batch(cls, scores: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> Pairs:
        """The n true pairs of a batch against all its n·classes pairs, true ones included ("Guess First", §2.2).

        Labels of Q are uniform, whatever their frequencies under P. So dP/dQ is ``classes``·p(y|x), whose softmax is
        the posterior.
        """
        critic = float32_at_least(scores)
        n, classes = critic.shape
        joint = torch.zeros_like(critic).scatter_(1, labels[:, None].long(), 1.0 / n)
        return cls(critic, joint, torch.full_like(critic, 1.0 / (n * classes)))

    @classmethod
    def of_table(cls, critic: Float[Tensor, "x y"], joint: Float[Tensor, "x y"]) -> Pairs:
        """P is a whole joint distribution, Q the product of its marginals."""
        return cls(float32_at_least(critic), joint, joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True))

    def expected(self, values: Float[Tensor, "x y"]) -> Float[Tensor, ""]:
        """E_P."""
        return (self.joint * values).sum()


def convex_conjugate(divergence: Divergence, pairs: Pairs) -> Float[Tensor, ""]:
    """E_P[T] − E_Q[f*(T)], at most D(P‖Q) for every critic ("Guess First", eq. 1; eq. 2 is js without its ln 4)."""
    pushed_down = (pairs.product * divergence.conjugate(pairs.critic)).sum()
    return pairs.expected(divergence.activation(pairs.critic)) - pushed_down


def donsker_varadhan(pairs: Pairs) -> Float[Tensor, ""]:
    """E_P[v] − ln E_Q[e^v], at most KL(P‖Q) for every critic ("Guess First", eq. 4); a constant in v changes nothing.

    Of a batch, the mean inside the logarithm spans all its pairs, so that the estimate depends on the batch's size.
    """
    return pairs.expected(pairs.critic) - (pairs.critic + pairs.product.log()).flatten().logsumexp(0)


def energy_based(pairs: Pairs) -> Float[Tensor, ""]:
    """E_P[v] − E_x[ln E_q(y)[e^v]], at most KL(P‖Q) for every critic ("Guess First", eqs. 5 and 6).

    Anything that depends on x alone changes nothing. With uniform q(y) it is ln(classes) less the cross-entropy of
    softmax_y v, exactly.
    """
    rows = pairs.product.sum(1)
    inner = (pairs.critic + (pairs.product / rows[:, None]).log()).logsumexp(1)
    return pairs.expected(pairs.critic) - (rows * inner).sum()
