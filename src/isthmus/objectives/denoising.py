"""Denoising CEB autoencoder: codes keep what an example shares with a noisy one (Fischer 2020, Appendix C.3.1).

The noise function X' = f(X, U) says what does not matter: whatever it destroys cannot be told from X', and costs.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from jaxtyping import Int
from torch import Tensor

from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.objectives.pairs import both_ways, one_way, swapped
from isthmus.objectives.terms import TradeOff, WeightName

PARTS = frozenset({"encoder", "backward", "partners"})


class Config(TradeOff):
    """Bidirectional CEB on pairs (x, x' = f(x, u)), with CatGen both ways.

    Attributes:
        bidirectional: False encodes the noisy example alone, z' ~ b(z|x'), to find its original: e(z|x) is then what
            makes the residual of Z' small, and no code of its own.
    """

    information_weight: ClassVar[WeightName] = "residual_weight"
    name: Literal["denoising"] = "denoising"
    rho: float = 3.0
    bidirectional: bool = True


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """min I(X'; Z' | X) − I(X; Z') from the noisy to the original, and as a rule the same from the original, in nats.

    mean[−log softmax_k e(z'_i|x_k) at k = i + e^-ρ·(log b(z'|x') − log e(z'|x))], z' ~ b(z|x'); plus the same with e
    and b, x and x' exchanged, z ~ e(z|x). The printed equations are lost; these follow from the text and its model.
    """
    if config.bidirectional:
        return both_ways(config, codes, labels, rho)
    return one_way(config, swapped(codes), labels, rho)
