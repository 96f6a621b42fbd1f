"""The variational information bottleneck (Alemi et al. 2017; Fischer & Alemi 2020, eq. 7)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.terms import TradeOff, WeightName, rate, report, weighted_sum

PARTS = frozenset({"encoder", "marginal"})


class Config(TradeOff):
    """VIB: ``ce + R / (1 + e^ρ)``. β = 1e-3 on the rate is ρ = 6.907."""

    information_weight: ClassVar[WeightName] = "rate_weight"
    name: Literal["vib"] = "vib"
    rho: float = 6.907


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """mean[−log c(y|z) + σ(−ρ)·(log e(z|x) − log m(z))], in nats. ``rho`` overrides the config's."""
    weight = config.weight(rho)
    ce = codes.cross_entropy(labels).mean()
    information = rate(codes, config.kl).mean()
    return Terms(
        total=weighted_sum(config, ce, information, weight),
        ce=ce,
        weight=weight,
        rate=information,
        **report(codes, labels, ce),
    )
