"""Multi-scale sequence CEB: predictive CEB at every level of a dilated hierarchy (Fischer 2020, Appendix C.2.2)."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from isthmus.objectives.objective import LevelObjective, WeightName
from isthmus.objectives.pairs import PairObjective
from isthmus.objectives.predictive import PredictiveCEB


class MultiscaleCEB(LevelObjective, PairObjective):
    """Predictive CEB at each level: ``Σ_i ce_i + e^-ρ_i · I(Z_{i−1}; Z_i | future)``, where Z_0 is the past.

    min Σ_i I(Z_{i−1}; Z_i | X_≥t) − I(X_≥t; Z_i): eq. A3 at each level of eq. A1, where all Z_i predict one future. Z_i
    aggregates the codes of level i, whose windows are wider than those below by the dilation.
    """

    information_weight: ClassVar[WeightName] = "residual_weight"
    uses_label_noise: ClassVar[bool] = False
    name: Literal["multiscale"] = "multiscale"
    rho: float = 3.0

    def level_objective(self, **options: Any) -> PredictiveCEB:
        """Predictive CEB."""
        return PredictiveCEB(**options)
