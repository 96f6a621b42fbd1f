"""Hierarchical CEB: every level of Z_L ← … ← Z_1 ← X predicts the label (Fischer 2020, Appendix C.1)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from isthmus.objectives.ceb import CEB
from isthmus.objectives.objective import LevelObjective, WeightName


class HierarchicalCEB(LevelObjective):
    """CEB at each level: ``Σ_i ce_i + e^-ρ_i · I(Z_{i−1}; Z_i | Y)`` with Z_0 = X.

    min Σ_i I(Z_{i−1}; Z_i | Y) − I(Y; Z_i), by e_i(z_i|z_{i−1}), b_i(z_i|y) and c_i(y|z_i) of each level (eq. A2):
    Σ_i mean[−log c_i(y|z_i) + e^-ρ_i·(log e_i(z_i|z_{i−1}) − log b_i(z_i|y))] in nats, on samples drawn level by level.
    ρ = 0 is the printed form (eq. A1).
    """

    information_weight: ClassVar[WeightName] = "residual_weight"
    uses_backward_encoder: ClassVar[bool] = True
    name: Literal["hierarchical"] = "hierarchical"
    rho: float = 0.0

    def level_objective(self, **options: Any) -> CEB:
        """CEB."""
        return CEB(**options)
