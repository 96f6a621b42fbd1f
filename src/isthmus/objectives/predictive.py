"""Predictive CEB: codes of the past that keep only what predicts the future (Fischer 2020, Appendix C.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.objective import WeightName
from isthmus.objectives.pairs import PairObjective


class PredictiveCEB(PairObjective):
    """``ce + e^-ρ · I(past; Z | future)``, where ``ce`` picks a code's own future among those of the batch.

    Attributes:
        bidirectional: add the same from the future to the past: codes drawn from b(z|future) pick their own past.
    """

    information_weight: ClassVar[WeightName] = "residual_weight"
    name: Literal["predictive"] = "predictive"
    rho: float = 3.0
    bidirectional: bool = False

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """min I(X_<t; Z_t | X_≥t) − I(X_≥t; Z_t) (eq. A3), with e(z|x_<t), b(z|x_≥t), and CatGen for the decoder.

        mean[−log softmax_k b(z_t|x_≥t,k) at the own future + e^-ρ·(log e(z_t|x_<t) − log b(z_t|x_≥t))], in nats.
        """
        return self.both_ways(codes, labels, rho) if self.bidirectional else self.one_way(codes, labels, rho)
