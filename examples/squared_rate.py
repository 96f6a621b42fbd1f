"""An objective of your own: VIB with the square of the rate.

Where labels follow from images, minimising ``ce + weight·R`` reaches only few points of the trade-off; with R² every
point has a ρ of its own ("Caveats for information bottleneck in deterministic scenarios", Kolchinsky et al. 2019).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.terms import TradeOff, WeightName, rate, report, weighted_sum

PARTS = frozenset({"encoder", "marginal"})  # what the model around it needs: e(z|x) and m(z)


class Config(TradeOff):
    """``ce + R² / (1 + e^ρ)``."""

    information_weight: ClassVar[WeightName] = "rate_weight"
    name: Literal["squared_rate"] = "squared_rate"
    rho: float = 3.0


def terms(config: Config, codes: Codes, labels: Tensor, rho: float | None = None) -> Terms:
    """The loss on one batch, and what every objective reports, in nats."""
    weight = config.weight(rho)
    ce = codes.cross_entropy(labels).mean()
    information = rate(codes, config.kl).mean()
    return Terms(
        total=weighted_sum(config, ce, information.square(), weight),
        ce=ce,
        weight=weight,
        rate=information,
        **report(codes, labels, ce),
    )
