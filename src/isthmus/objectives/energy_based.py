"""Energy-based: verify label hypotheses by a bound on I(X;Y), which is the cross-entropy ("Guess First", eqs. 5, 6)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.f_divergences import Pairs, energy_based
from isthmus.information.hypotheses import Hypotheses
from isthmus.objectives.guessing import Guessing, terms_of

PARTS = frozenset({"hypotheses"})


class Config(Guessing):
    """Cross-entropy on conditioned scores: ``total`` is ``ce − ln C`` at ρ = ∞, exactly."""

    name: Literal["energy_based"] = "energy_based"


def terms(config: Config, hypotheses: Hypotheses, labels: Int[Tensor, " n"], rho: float | None = None) -> Terms:
    """−(mean of v over true pairs − mean over images of ln mean_y e^v) + e^-ρ · Σ_y MMD²_y."""
    bound = energy_based(Pairs.of_batch(hypotheses.scores, labels))
    return terms_of(config, bound, hypotheses, labels, rho)
