"""Donsker-Varadhan: verify label hypotheses by a bound on KL(true pairs ‖ all pairs) ("Guess First", eq. 4)."""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.f_divergences import Pairs, donsker_varadhan
from isthmus.information.hypotheses import Hypotheses
from isthmus.objectives.guessing import Guessing, terms_of

PARTS = frozenset({"hypotheses"})


class Config(Guessing):
    """The paper's C-DV, and C-DV-IE at a finite ρ. Depends on the batch size, as the paper says of it."""

    across_examples: ClassVar[bool] = True
    name: Literal["donsker_varadhan"] = "donsker_varadhan"


def terms(config: Config, hypotheses: Hypotheses, labels: Int[Tensor, " n"], rho: float | None = None) -> Terms:
    """−(mean of v over true pairs − ln mean of e^v over all n·C pairs) + e^-ρ · Σ_y MMD²_y."""
    bound = donsker_varadhan(Pairs.of_batch(hypotheses.scores, labels))
    return terms_of(config, bound, hypotheses, labels, rho)
