"""Predictive CEB: codes of the past that tell the future, and nothing else of the past (Fischer 2020, Appendix C.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.pairs import both_ways, one_way
from isthmus.objectives.terms import TradeOff, WeightName

PARTS = frozenset({"encoder", "backward", "partners"})


class Config(TradeOff):
    """``ce + e^-ρ · I(past; Z | future)``, where ``ce`` picks a code's own future among those of the batch.

    Attributes:
        bidirectional: the same from the future to the past, too: codes drawn from b(z|future) pick their own past.
    """

    information_weight: ClassVar[WeightName] = "residual_weight"
    name: Literal["predictive"] = "predictive"
    rho: float = 3.0
    bidirectional: bool = False


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """min I(X_<t; Z_t | X_≥t) − I(X_≥t; Z_t) (eq. A3), with e(z|x_<t), b(z|x_≥t), and CatGen for the decoder.

    mean[−log softmax_k b(z_t|x_≥t,k) at the own future + e^-ρ·(log e(z_t|x_<t) − log b(z_t|x_≥t))], in nats.
    """
    return both_ways(config, codes, labels, rho) if config.bidirectional else one_way(config, codes, labels, rho)
