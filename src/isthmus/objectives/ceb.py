"""The conditional entropy bottleneck (Fischer 2020; Fischer & Alemi 2020, eq. 6)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.terms import TradeOff, WeightName, rate_beside, report, residual, weighted_sum

PARTS = frozenset({"encoder", "backward"})


class Config(TradeOff):
    """CEB: ``ce + e^-ρ · ReX``. ρ = 0 aims at the minimum necessary information, I(X;Z) = I(X;Y) = I(Y;Z)."""

    information_weight: ClassVar[WeightName] = "residual_weight"
    name: Literal["ceb"] = "ceb"
    rho: float = 3.0


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """mean[−log c(y|z) + e^-ρ·(log e(z|x) − log b(z|y))], in nats. ``rho`` overrides the config's.

    The rate is only reported; see :func:`isthmus.objectives.terms.rate_beside`.
    """
    weight = config.weight(rho)
    ce = codes.cross_entropy(labels).mean()
    information = residual(codes, labels, config.kl).mean()
    return Terms(
        total=weighted_sum(config, ce, information, weight),
        ce=ce,
        weight=weight,
        residual=information,
        **rate_beside(codes, labels),
        **report(codes, labels, ce),
    )
