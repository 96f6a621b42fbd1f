"""Cross-entropy on a deterministic code: the baseline of every bottleneck."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.objective import BottleneckObjective, report


class Deterministic(BottleneckObjective):
    """Cross-entropy without an information term, and hence without a trade-off."""

    stochastic: ClassVar[bool] = False
    name: Literal["deterministic"] = "deterministic"

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """E[−log c(y|f(x))], in nats. ``rho`` is accepted and has no effect."""
        ce = codes.cross_entropy(labels).mean()
        return Terms(total=ce, ce=ce, **report(codes, labels, ce))
