"""The variational information bottleneck (Alemi et al. 2017; Fischer & Alemi 2020, eq. 7)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.objective import InformationObjective, WeightName, rate, report


class VIB(InformationObjective):
    """VIB: ``ce + R / (1 + e^ρ)``. β = 1e-3 on the rate is ρ = 6.907."""

    information_weight: ClassVar[WeightName] = "rate_weight"
    uses_marginal: ClassVar[bool] = True
    name: Literal["vib"] = "vib"
    rho: float = 6.907

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """mean[−log c(y|z) + σ(−ρ)·(log e(z|x) − log m(z))], in nats."""
        ce = codes.cross_entropy(labels).mean()
        information = rate(codes, self.kl).mean()
        return self.combined(rho, ce, information, **report(codes, labels, ce))
