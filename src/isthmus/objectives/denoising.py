"""Denoising CEB autoencoder: codes keep what an example shares with a noisy copy (Fischer 2020, Appendix C.3.1).

The noise function X' = f(X, U) defines what does not matter: information that it destroys cannot be predicted from X',
and is penalised.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.objective import WeightName
from isthmus.objectives.pairs import PairObjective, swapped


class DenoisingCEB(PairObjective):
    """Bidirectional CEB on pairs (x, x' = f(x, u)), with CatGen both ways.

    Attributes:
        bidirectional: if False, encode the noisy example alone, z' ~ b(z|x'), to find its original. e(z|x) then only
            reduces the residual of Z'; no code is drawn from it.
    """

    information_weight: ClassVar[WeightName] = "residual_weight"
    name: Literal["denoising"] = "denoising"
    rho: float = 3.0
    bidirectional: bool = True

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """min I(X'; Z' | X) − I(X; Z') from the noisy example to the original, by default also the reverse; in nats.

        mean[−log softmax_k e(z'_i|x_k) at k = i + e^-ρ·(log b(z'|x') − log e(z'|x))], z' ~ b(z|x'); plus the same with
        e and b, x and x' exchanged, z ~ e(z|x). The paper's equations are missing in print; these follow from its text
        and model.
        """
        if self.bidirectional:
            return self.both_ways(codes, labels, rho)
        return self.one_way(swapped(codes), labels, rho)
