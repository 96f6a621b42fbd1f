"""f-divergences by their convex conjugate: verify label hypotheses as a GAN's critic does ("Guess First", eqs. 1-2)."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from isthmus.information.f_divergences import DIVERGENCES, DivergenceName, Pairs, convex_conjugate
from isthmus.objectives.label_hypotheses import HypothesisObjective


class FDivergence(HypothesisObjective):
    """The paper's C-JS (``divergence: js``), C-JS-IE at a finite ρ, and the rest of the family.

    Attributes:
        divergence: "js" (2·JSD), "kl" (the bound of Nguyen, Wainwright and Jordan), "reverse_kl", "pearson",
            "squared_hellinger" or "total_variation". The scores are log-ratios, except for the last, which determines
            only their sign: enough for predictions, not for probabilities.
    """

    name: Literal["f_divergence"] = "f_divergence"
    divergence: DivergenceName = "js"

    def bound(self, pairs: Pairs) -> Float[Tensor, ""]:
        """Mean of T over true pairs − mean of f*(T) over all n·C pairs."""
        return convex_conjugate(DIVERGENCES[self.divergence], pairs)
