"""Donsker-Varadhan: verify label hypotheses by a bound on KL(true pairs ‖ all pairs) ("Guess First", eq. 4)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from isthmus.information.f_divergences import Pairs, donsker_varadhan
from isthmus.objectives.label_hypotheses import HypothesisObjective


class DonskerVaradhan(HypothesisObjective):
    """The paper's C-DV, and C-DV-IE at a finite ρ. It depends on the batch size, as the paper notes."""

    across_examples: ClassVar[bool] = True
    name: Literal["donsker_varadhan"] = "donsker_varadhan"

    def bound(self, pairs: Pairs) -> Float[Tensor, ""]:
        """Mean of v over true pairs − ln mean of e^v over all n·C pairs."""
        return donsker_varadhan(pairs)
