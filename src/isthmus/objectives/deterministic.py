"""Plain cross-entropy on a deterministic code: the baseline every bottleneck is compared with."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.config import Component
from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.terms import report

PARTS: frozenset[str] = frozenset()


class Config(Component):
    """Cross-entropy; there is no trade-off to set."""

    name: Literal["deterministic"] = "deterministic"


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """E[−log c(y|f(x))], in nats. ``rho`` is accepted and has no effect: there is no information term."""
    ce = codes.cross_entropy(labels).mean()
    return Terms(total=ce, ce=ce, **report(codes, labels, ce))
