"""A custom objective: VIB with the square of the rate.

If the image determines the label, minimising ``ce + weight·R`` reaches only few points of the trade-off; with R² every
point has its own ρ ("Caveats for information bottleneck in deterministic scenarios", Kolchinsky et al. 2019).
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.objective import InformationObjective, WeightName, rate, report


class SquaredRate(InformationObjective):
    """``ce + R² / (1 + e^ρ)``."""

    information_weight: ClassVar[WeightName] = "rate_weight"
    uses_marginal: ClassVar[bool] = True  # the model must have m(z)
    rho: float = 3.0

    def terms(self, codes: Codes, labels: Tensor, rho: float | None = None) -> Terms:
        """The loss on one batch, and the terms that every objective reports, in nats."""
        weight = self.weight(rho)
        ce = codes.cross_entropy(labels).mean()
        information = rate(codes, self.kl).mean()
        return Terms(
            total=self.total(ce, information.square(), weight),
            ce=ce,
            weight=weight,
            rate=information,
            **report(codes, labels, ce),
        )
