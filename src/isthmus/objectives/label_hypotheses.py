"""Base of objectives on label hypotheses: ρ, the elimination that it weights, and the terms that they report."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from isthmus.core.config import Frozen
from isthmus.core.types import Terms
from isthmus.information.codes import Hypotheses
from isthmus.information.f_divergences import Pairs
from isthmus.information.mmd import Pairing, label_information
from isthmus.objectives.objective import TradeOffObjective, WeightName

Width = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Elimination(Frozen):
    """Estimate of label information in a hidden representation; see :func:`isthmus.information.mmd.label_information`.

    Attributes:
        pairing: which two samples are compared under a hypothesis.
        unbiased: train on the unbiased estimate, which can be negative.
        sigma: width of the Gaussian kernel; None means the batch's median distance under each hypothesis.
        bandwidths: the kernel is the mean of those with these multiples of the width.
    """

    pairing: Pairing = "matched_vs_rest"
    unbiased: bool = False
    sigma: Width | None = None
    bandwidths: Annotated[tuple[Width, ...], Field(min_length=1)] = (1.0,)


class HypothesisObjective(TradeOffObjective, ABC):
    """``−bound + e^-ρ · Σ_y MMD²_y``; e^-ρ is the paper's λ, and ρ = ∞ switches the elimination off.

    Give ``rho``, or ``elimination_weight`` for λ, which is converted to ρ (0 is ρ = ∞).
    """

    alternatives: ClassVar[tuple[str, ...]] = ("elimination_weight",)
    information_weight: ClassVar[WeightName] = "residual_weight"
    rho: float = float("inf")
    elimination: Elimination = Elimination()

    @property
    def compares_examples(self) -> bool:
        """Also if the elimination has a weight: its kernel compares examples."""
        return self.across_examples or self.weight() > 0.0

    @abstractmethod
    def bound(self, pairs: Pairs) -> Float[Tensor, ""]:
        """A lower bound on an f-divergence between true pairs and all pairs of image and label."""

    def terms(self, hypotheses: Hypotheses, labels: Int[Tensor, " n"], rho: float | None = None) -> Terms:
        """−bound + e^-ρ · Σ_y MMD²_y. The elimination is computed only if its weight is above 0.

        ``ce`` is the cross-entropy of softmax_y of the scores, the posterior's logits; it is only reported.
        """
        bound = self.bound(Pairs.of_batch(hypotheses.scores, labels))
        weight = self.weight(rho)
        total = -bound
        reported: dict[str, Any] = {}
        if weight > 0.0:
            options = self.elimination
            found = label_information(
                hypotheses.representations(),
                labels,
                options.pairing,
                sigma=options.sigma,
                bandwidths=options.bandwidths,
            )
            elimination = (found.unbiased if options.unbiased else found.biased).sum()
            total = total + weight * elimination
            reported = {"elimination": elimination, "elimination_unbiased": found.unbiased.sum().detach()}
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
