"""Multi-scale sequence CEB: predictive CEB at every level of a dilated hierarchy (Fischer 2020, Appendix C.2.2)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives import predictive
from isthmus.objectives.levels import LevelTradeOff, over_levels
from isthmus.objectives.terms import WeightName

PARTS = frozenset({"encoder", "backward", "partners", "levels"})


class Config(LevelTradeOff):
    """Predictive CEB at each level, ``Σ_i ce_i + e^-ρ · I(Z_{i−1}; Z_i | future)``, where Z_0 is the past."""

    information_weight: ClassVar[WeightName] = "residual_weight"
    name: Literal["multiscale"] = "multiscale"
    rho: float = 3.0


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """min Σ_i I(Z_{i−1}; Z_i | X_≥t) − I(X_≥t; Z_i): eq. A3 at each level of eq. A1, all Z_i telling one future.

    Z_i is the aggregate of the codes of level i, each over a window wider than those below by the dilation.
    """

    def predictive_at(level: int, own: Codes) -> Terms:
        chosen = predictive.Config(**config.at_level(level))
        return predictive.terms(chosen, own, labels, config.rho_at_level(level, rho))

    return over_levels(codes, predictive_at)
