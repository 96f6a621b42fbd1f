"""Hierarchical CEB: every level of Z_L ← … ← Z_1 ← X keeps what tells the label (Fischer 2020, Appendix C.1)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives import ceb
from isthmus.objectives.levels import LevelTradeOff, over_levels
from isthmus.objectives.terms import WeightName

PARTS = frozenset({"encoder", "backward", "levels"})


class Config(LevelTradeOff):
    """CEB at each level, ``Σ_i ce_i + e^-ρ · I(Z_{i−1}; Z_i | Y)`` with Z_0 = X. ρ = 0 is the printed form (eq. A1)."""

    information_weight: ClassVar[WeightName] = "residual_weight"
    name: Literal["hierarchical"] = "hierarchical"
    rho: float = 0.0


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """min Σ_i I(Z_{i−1}; Z_i | Y) − I(Y; Z_i), by e_i(z_i|z_{i−1}), b_i(z_i|y) and c_i(y|z_i) of each level (eq. A2).

    Σ_i mean[−log c_i(y|z_i) + e^-ρ_i·(log e_i(z_i|z_{i−1}) − log b_i(z_i|y))] in nats, on samples drawn level by level.
    """

    def ceb_at(level: int, own: Codes) -> Terms:
        return ceb.terms(ceb.Config(**config.at_level(level)), own, labels, config.rho_at_level(level, rho))

    return over_levels(codes, ceb_at)
