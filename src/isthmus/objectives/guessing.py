"""What objectives on label hypotheses share: ρ and the elimination it weights, and the terms they report."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from isthmus.core.config import Frozen
from isthmus.core.types import Terms
from isthmus.information.hypotheses import Hypotheses
from isthmus.information.mmd import Pairing, label_information
from isthmus.objectives.terms import Knob, WeightName

Width = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Elimination(Frozen):
    """How label information is measured in a hidden representation: :func:`isthmus.information.mmd.label_information`.

    Attributes:
        pairing: which two samples are compared under a hypothesis.
        unbiased: train on the unbiased estimate, which can be negative.
        sigma: width of the Gaussian kernel; the batch's median distance under each hypothesis where None.
        bandwidths: the kernel is the mean of those with these multiples of the width.
    """

    pairing: Pairing = "matched_vs_rest"
    unbiased: bool = False
    sigma: Width | None = None
    bandwidths: Annotated[tuple[Width, ...], Field(min_length=1)] = (1.0,)


class Guessing(Knob):
    """``−bound + e^-ρ · Σ_y MMD²_y``; e^-ρ is the paper's λ, and ρ = ∞ leaves the elimination out.

    Give ``rho``, or ``elimination_weight`` for λ itself, which becomes it (0 is ρ = ∞).
    """

    alternatives: ClassVar[tuple[str, ...]] = ("elimination_weight",)
    information_weight: ClassVar[WeightName] = "residual_weight"
    rho: float = float("inf")
    elimination: Elimination = Elimination()

    @property
    def compares_examples(self) -> bool:
        """Also where the elimination has a weight: its kernel is between examples."""
        return self.across_examples or self.weight() > 0.0


def terms_of(
    config: Guessing,
    bound: Float[Tensor, ""],
    hypotheses: Hypotheses,
    labels: Int[Tensor, " n"],
    rho: float | None,
) -> Terms:
    """The terms of one batch from its bound; the elimination is computed where its weight is above 0.

    ``ce`` is the cross-entropy of softmax_y of the scores, which are the posterior's logits; it is reported alone.
    """
    weight = config.weight(rho)
    total = -bound
    reported: dict[str, Any] = {}
    if weight > 0.0:
        options = config.elimination
        left = label_information(
            hypotheses.representations(), labels, options.pairing, sigma=options.sigma, bandwidths=options.bandwidths
        )
        elimination = (left.unbiased if options.unbiased else left.biased).sum()
        total = total + weight * elimination
        reported = {"elimination": elimination, "elimination_unbiased": left.unbiased.sum().detach()}
    scores = hypotheses.scores.detach()
    ce = cross_entropy(scores, labels)
    return Terms(
        total=total,
        ce=ce,
        accuracy=(scores.argmax(1) == labels).float().mean(),
        weight=weight,
        i_yz_lower=hypotheses.label_entropy - ce,
        bound=bound,
        **reported,
    )
