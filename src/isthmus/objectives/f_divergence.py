"""f-divergences by their convex conjugate: verify label hypotheses as a GAN's critic does ("Guess First", eqs. 1-2)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.f_divergences import DIVERGENCES, DivergenceName, Pairs, convex_conjugate
from isthmus.information.hypotheses import Hypotheses
from isthmus.objectives.guessing import Guessing, terms_of

PARTS = frozenset({"hypotheses"})


class Config(Guessing):
    """The paper's C-JS (``divergence: js``), C-JS-IE at a finite ρ, and the rest of the family.

    Attributes:
        divergence: "js" (2·JSD), "kl" (the bound of Nguyen, Wainwright and Jordan), "reverse_kl", "pearson",
            "squared_hellinger" or "total_variation". The scores are log-ratios for all of them but the last, of which
            the sign alone is determined: good for predictions, not for probabilities.
    """

    name: Literal["f_divergence"] = "f_divergence"
    divergence: DivergenceName = "js"


def terms(config: Config, hypotheses: Hypotheses, labels: Int[Tensor, " n"], rho: float | None = None) -> Terms:
    """−(mean of T over true pairs − mean of f*(T) over all n·C pairs) + e^-ρ · Σ_y MMD²_y."""
    bound = convex_conjugate(DIVERGENCES[config.divergence], Pairs.of_batch(hypotheses.scores, labels))
    return terms_of(config, bound, hypotheses, labels, rho)
