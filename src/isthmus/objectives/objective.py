"""Base classes of objectives: what a model must provide, the trade-off parameter ρ, and the terms that all report.

An objective is a frozen class whose fields are its options. Its base class says which model it trains:

* :class:`BottleneckObjective`: codes of labelled images (:func:`isthmus.bottleneck`). Its class attributes declare
  which densities the model must have. :class:`InformationObjective` adds ρ.
* :class:`isthmus.objectives.pairs.PairObjective`: codes of pairs without labels (:func:`isthmus.paired`).
* :class:`isthmus.objectives.label_hypotheses.HypothesisObjective`: scores of label hypotheses
  (:func:`isthmus.hypothesis`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import model_validator
from torch import Tensor

from isthmus.core.config import Component
from isthmus.core.errors import ConfigError
from isthmus.core.tradeoff import Rho
from isthmus.core.types import Terms
from isthmus.information.codes import Codes
from isthmus.information.gaussians import Gaussian, kl
from isthmus.information.measures import Measures
from isthmus.information.rates import rate_sandwich

WeightName = Literal["rate_weight", "residual_weight"]


def _from_elimination_weight(weight: float) -> Rho:
    if not weight >= 0.0:
        raise ValueError(f"elimination_weight must be 0 (no elimination) or above, got {weight}")
    return Rho.from_residual_weight(weight) if weight > 0.0 else Rho(math.inf)


_TO_RHO = {
    "rate_weight": Rho.from_rate_weight,
    "residual_weight": Rho.from_residual_weight,
    "relevance_weight": Rho.from_relevance_weight,
    "elimination_weight": _from_elimination_weight,
}


class Objective(Component):
    """Base of every objective.

    Attributes:
        across_examples: the loss compares the examples of a batch with one another, so it is no mean over them.
    """

    across_examples: ClassVar[bool] = False

    @property
    def compares_examples(self) -> bool:
        """Whether the loss compares examples under these options."""
        return self.across_examples

    @property
    def configured(self) -> str:
        """The trade-off in words if the options give one; otherwise empty."""
        return ""


class TradeOffObjective(Objective):
    """An objective with the trade-off parameter ρ. Give ``rho``, or one of the ``alternatives``, which sets it.

    Attributes:
        alternatives: other parametrisations of the trade-off.
        information_weight: which weight of :class:`isthmus.core.tradeoff.Rho` multiplies the information term.
    """

    alternatives: ClassVar[tuple[str, ...]]
    information_weight: ClassVar[WeightName]
    rho: float

    def weight(self, rho: float | None = None) -> float:
        """Weight of the information term at ``rho``; None means the objective's ρ."""
        value: float = getattr(Rho(self.rho if rho is None else rho), self.information_weight)
        return value

    @property
    def configured(self) -> str:
        """The trade-off in words if the options give one, as ρ or as a weight; otherwise empty."""
        if "rho" not in self.model_fields_set:
            return ""
        return f"rho = {self.rho:.4g} ({self.information_weight} = {self.weight():.4g})"

    def rho_at_weight(self, weight: float) -> float:
        """The ρ at which the information term has this weight; inf for 0."""
        return _TO_RHO[self.information_weight](weight).value if weight > 0.0 else math.inf

    @model_validator(mode="before")
    @classmethod
    def _one_trade_off(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if "beta" in given and "rate_weight" in cls.alternatives:
            raise ValueError("there is no beta; β in ce + β·rate is called rate_weight")
        if isinstance(given.get("rho"), Rho):
            given = {**given, "rho": given["rho"].value}
        used = [key for key in cls.alternatives if key in given]
        if len(used) + ("rho" in given) > 1:
            raise ValueError(f"give only one of rho, {', '.join(cls.alternatives)}; they set the same trade-off")
        if not used:
            return given
        try:
            weight = float(given[used[0]])  # YAML reads 1e-3, without a dot, as text
        except (TypeError, ValueError):
            raise ValueError(f"{used[0]} must be a number, got {given[used[0]]!r}") from None
        rest = {key: value for key, value in given.items() if key != used[0]}
        return rest | {"rho": _TO_RHO[used[0]](weight).value}

    @model_validator(mode="after")
    def _is_a_number(self) -> Self:
        if math.isnan(self.rho):
            raise ValueError("rho must be a number or inf, got nan")
        return self


class BottleneckObjective(Objective, ABC):
    """An objective on the codes of labelled images.

    Attributes:
        stochastic: codes are drawn from e(z|x); if False, the code is the mean.
        uses_backward_encoder: the loss needs b(z|y).
        uses_marginal: the loss minimises a rate over m(z). Otherwise m(z) is only reported.
        uses_label_noise: the loss draws codes from b(z|y).
        uses_shared_noise: the loss assumes that e(z|x) has the same noise for all images.
        default_classifier: form of c(y|z) if the model names none; see :func:`isthmus.bottleneck`.
    """

    stochastic: ClassVar[bool] = True
    uses_backward_encoder: ClassVar[bool] = False
    uses_marginal: ClassVar[bool] = False
    uses_label_noise: ClassVar[bool] = False
    uses_shared_noise: ClassVar[bool] = False
    default_classifier: ClassVar[Literal["linear", "consistent"]] = "linear"

    @property
    def kernel_images(self) -> int:
        """Number of training images to fit a kernel to at the start of each epoch; 0 if there is no such kernel."""
        return 0

    @abstractmethod
    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """The terms of one batch, in nats. ``rho`` overrides the objective's ρ."""


class InformationObjective(TradeOffObjective, BottleneckObjective, ABC):
    """An objective ``ce + weight · information`` on codes.

    Give ``rho``, or exactly one of ``rate_weight`` (VIB's β), ``residual_weight`` (CEB's weight) and
    ``relevance_weight`` (β_IB of ``I(X;Z) − β_IB·I(Y;Z)``), which is converted to ρ.

    Attributes:
        kl: "closed" uses the closed form of the information term if there is one, which has less variance;
            "sampled" averages log-density ratios over the samples that are classified.
        normalize: "prediction" keeps the cross-entropy at weight 1. "rate" divides the loss by the information weight
            at the objective's ρ (the form of Fischer 2020): the same minimiser, with gradients larger by a constant
            factor, also while a schedule moves towards that ρ.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("rate_weight", "residual_weight", "relevance_weight")
    kl: Literal["closed", "sampled"] = "closed"
    normalize: Literal["prediction", "rate"] = "prediction"

    @model_validator(mode="after")
    def _rate_form_is_finite(self) -> Self:
        if self.normalize == "rate" and not abs(self.rho) < 80.0:
            raise ValueError(f"normalize='rate' divides by the weight, which ρ = {self.rho} makes 0 or infinite")
        return self

    def total(self, ce: Tensor, information: Tensor, weight: float) -> Tensor:
        """``ce + weight · information``; for ``normalize="rate"`` divided by the weight at the objective's ρ.

        A weight of 0 drops the information term: 0 times an overflowing rate would be NaN.
        """
        total = ce if weight == 0.0 else ce + weight * information
        return total if self.normalize == "prediction" else total / self.weight()

    def combined(self, rho: float | None, ce: Tensor, information: Tensor, **reported: Any) -> Terms:
        """The terms of ``ce + weight · information``, and those that are only reported.

        The information is the term ``rate`` or ``residual``, depending on ``information_weight``.
        """
        weight = self.weight(rho)
        named: dict[str, Any] = {self.information_weight.removesuffix("_weight"): information}
        return Terms(total=self.total(ce, information, weight), ce=ce, weight=weight, **named, **reported)


class LevelObjective(InformationObjective, ABC):
    """The sum of one objective over all levels of a hierarchy Z_L ← … ← Z_1 ← X.

    Attributes:
        offsets: added to ρ at each level, lowest first: level i weighs ReX with e^-(ρ + offset_i). None gives all
            levels the same ρ.
    """

    offsets: tuple[float, ...] | None = None

    @abstractmethod
    def level_objective(self, **options: Any) -> InformationObjective:
        """The objective of a single level."""

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """Σ_i of the levels' totals; see :class:`isthmus.core.types.Terms` for the level that each term belongs to."""
        levels = tuple(self._at_level(number, level, labels, rho) for number, level in enumerate(codes.levels))
        total = sum((level.total for level in levels[1:]), start=levels[0].total)
        return replace(
            levels[0],
            total=total,
            ce=levels[-1].ce,
            accuracy=levels[-1].accuracy,
            i_yz_lower=levels[-1].i_yz_lower,
            consistency_gap=levels[-1].consistency_gap,
            levels=levels,
        )

    def _at_level(self, level: int, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None) -> Terms:
        offset = 0.0 if self.offsets is None else self.offsets[level]
        objective = self.level_objective(rho=self.rho + offset, kl=self.kl, normalize=self.normalize)
        return objective.terms(codes, labels, None if rho is None else rho + offset)


def number_of_levels(objective: Objective, given: int | None) -> int:
    """The number of levels of a model with this objective: ``given``, or by default 2 for a hierarchy and 1 otherwise.

    Raises:
        ConfigError: the objective does not support this number, or its offsets are for another number of levels.
    """
    several = isinstance(objective, LevelObjective)
    number = given if given is not None else 2 if several else 1
    if number < 1 or (number > 1 and not several):
        what = "hierarchical and multiscale have several levels" if number > 1 else "there is one at least"
        raise ConfigError(f"levels = {number} does not go with the objective {objective.name!r}; {what}.")
    offsets = objective.offsets if isinstance(objective, LevelObjective) else None
    if offsets is not None and len(offsets) != number:
        raise ConfigError(
            f"The objective has {len(offsets)} offsets of ρ for {number} levels; give one for each level."
        )
    return number


def rate(codes: Codes, kl_form: str) -> Float[Tensor, "batch"]:
    """R = E[log e(z|x) − log m(z)] per example, in closed form if e and m allow one."""
    assert codes.encoder is not None
    assert codes.marginal is not None
    if kl_form == "closed" and isinstance(codes.marginal, Gaussian):
        return kl(codes.encoder, codes.marginal)
    return (codes.log_encoder - codes.marginal.log_prob(codes.exact)).mean(0).to(codes.samples.dtype)


def residual(codes: Codes, labels: Int[Tensor, "batch"], kl_form: str) -> Float[Tensor, "batch"]:
    """ReX = E[log e(z|x) − log b(z|y)] per example, in closed form or over the samples.

    Never clamped: single samples are negative where b is broader than e, and clamping would bias the gradient.
    """
    assert codes.encoder is not None
    assert codes.backward is not None
    backward = codes.backward[labels]
    if kl_form == "closed":
        divergence = kl(codes.encoder, backward)
        return (
            divergence if codes.below is None else divergence.mean(0)
        )  # upper levels: over samples of the level below
    return (codes.log_encoder - backward.log_prob(codes.exact)).mean(0).to(codes.samples.dtype)


def report_rate(codes: Codes, labels: Int[Tensor, "batch"]) -> dict[str, Any]:
    """Rate terms of an objective that does not minimise a rate: R, the consistency gap, and the marginal's loss.

    ``marginal_nll`` fits a marginal on detached codes, so it cannot move the encoder. A model without a marginal is
    measured with the class mixture of b(z|y) and one sample.
    """
    if codes.marginal is None:
        found, fitted = Measures(codes, labels, samples=1), {}
    else:
        log_marginal = codes.marginal.log_prob(codes.exact.detach())
        fitted = {"marginal_nll": -log_marginal.mean().to(codes.samples.dtype)}
        found = Measures(codes, labels, log_marginal=log_marginal)
    dtype = codes.samples.dtype
    reported = {"rate": found.rate.mean().to(dtype), "consistency_gap": found.consistency_gap.mean().to(dtype)}
    return reported | fitted


def report(codes: Codes, labels: Int[Tensor, "batch"], ce: Tensor) -> dict[str, Any]:
    """Terms that every objective reports and none minimises; without gradients, from one sample."""
    with torch.no_grad():
        found = {
            "accuracy": (codes.predictions() == labels).float().mean(),
            "i_yz_lower": codes.label_entropy - ce.detach(),
        }
        if codes.encoder is not None:
            lower, upper = rate_sandwich(*codes.first_draw)
            found["rate_lower"] = lower.mean()
            if len(labels) > 1:  # not measured on a batch of one, which has nothing to compare with
                found["rate_upper"] = upper.mean()
    return found
