"""The conditional entropy bottleneck (Fischer 2020; Fischer & Alemi 2020, eq. 6)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.objective import InformationObjective, WeightName, report, report_rate, residual


class CEB(InformationObjective):
    """CEB: ``ce + e^-ρ · ReX``. At ρ = 0 the optimum is the minimum necessary information, I(X;Z) = I(X;Y) = I(Y;Z)."""

    information_weight: ClassVar[WeightName] = "residual_weight"
    uses_backward_encoder: ClassVar[bool] = True
    name: Literal["ceb"] = "ceb"
    rho: float = 3.0

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """mean[−log c(y|z) + e^-ρ·(log e(z|x) − log b(z|y))], in nats.

        The rate is only reported; see :func:`isthmus.objectives.objective.report_rate`.
        """
        ce = codes.cross_entropy(labels).mean()
        information = residual(codes, labels, self.kl).mean()
        return self.combined(rho, ce, information, **report_rate(codes, labels), **report(codes, labels, ce))
