"""Energy-based: verify label hypotheses by a bound on I(X;Y), which is the cross-entropy ("Guess First", eqs. 5, 6)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from isthmus.information.f_divergences import Pairs, energy_based
from isthmus.objectives.label_hypotheses import HypothesisObjective


class EnergyBased(HypothesisObjective):
    """Cross-entropy on conditioned scores: ``total`` is ``ce − ln C`` at ρ = ∞, exactly."""

    name: Literal["energy_based"] = "energy_based"

    def bound(self, pairs: Pairs) -> Float[Tensor, ""]:
        """Mean of v over true pairs − mean over images of ln mean_y e^v."""
        return energy_based(pairs)
