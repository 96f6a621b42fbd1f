"""What objectives share: the knob ρ in their configs, and the terms every one of them reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import model_validator
from torch import Tensor

from isthmus.core.config import Component
from isthmus.core.tradeoff import Rho
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


class Knob(Component):
    """Config of an objective with the knob ρ: give ``rho``, or one of the ``alternatives``, which becomes it.

    Attributes:
        alternatives: other names of the trade-off.
        information_weight: which weight of :class:`isthmus.core.tradeoff.Rho` multiplies the information term.
        across_examples: whether the loss compares the examples of a batch, and is no mean over them.
    """

    alternatives: ClassVar[tuple[str, ...]]
    information_weight: ClassVar[WeightName]
    across_examples: ClassVar[bool] = False
    rho: float

    @property
    def compares_examples(self) -> bool:
        """:attr:`across_examples`, or whatever else in a config makes it so."""
        return self.across_examples

    def weight(self, rho: float | None = None) -> float:
        """Weight on the information term at ρ (the config's own where None)."""
        value: float = getattr(Rho(self.rho if rho is None else rho), self.information_weight)
        return value

    @property
    def configured(self) -> str:
        """The trade-off in words if the options name it, whether as ρ or as a weight; empty if it is the default."""
        if "rho" not in self.model_fields_set:
            return ""
        return f"rho = {self.rho:.4g} ({self.information_weight} = {self.weight():.4g})"

    def rho_at_weight(self, weight: float) -> float:
        """The ρ at which the information term has this weight; inf for 0."""
        return _TO_RHO[self.information_weight](weight).value if weight > 0.0 else math.inf

    @model_validator(mode="before")
    @classmethod
    def _one_knob(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        if "beta" in given and "rate_weight" in cls.alternatives:
            raise ValueError("there is no beta; β in ce + β·rate is called rate_weight")
        if isinstance(given.get("rho"), Rho):
            given = {**given, "rho": given["rho"].value}
        used = [key for key in cls.alternatives if key in given]
        if len(used) + ("rho" in given) > 1:
            raise ValueError(f"give one of rho, {', '.join(cls.alternatives)}; they are the same knob")
        if not used:
            return given
        try:
            weight = float(given[used[0]])  # YAML reads 1e-3, without a dot, as text
        except (TypeError, ValueError):
            raise ValueError(f"{used[0]} must be a number, got {given[used[0]]!r}") from None
        rest = {key: value for key, value in given.items() if key != used[0]}
        return rest | {"rho": _TO_RHO[used[0]](weight).value}

    @model_validator(mode="after")
    def _is_a_number(self) -> Knob:
        if math.isnan(self.rho):
            raise ValueError("rho must be a number or inf, got nan")
        return self


class TradeOff(Knob):
    """Config of a bottleneck's objective.

    Give ``rho``, or exactly one of ``rate_weight`` (VIB's β), ``residual_weight`` (CEB's weight) and
    ``relevance_weight`` (β_IB of ``I(X;Z) − β_IB·I(Y;Z)``); they become the equivalent ρ.

    Attributes:
        classifier: form of c(y|z) where a model names none; see :func:`isthmus.bottleneck`.
        kl: "closed" uses the closed form of the information term where there is one, which has less variance;
            "sampled" averages log-density ratios over the same samples that classify.
        normalize: "prediction" keeps the cross-entropy at weight 1; "rate" divides the loss by the information weight
            at this config's ρ (the form of Fischer 2020): the same minimiser, gradients larger by a constant factor,
            also while a schedule is on its way to that ρ.
    """

    alternatives: ClassVar[tuple[str, ...]] = ("rate_weight", "residual_weight", "relevance_weight")
    classifier: ClassVar[str] = "linear"
    kl: Literal["closed", "sampled"] = "closed"
    normalize: Literal["prediction", "rate"] = "prediction"

    @model_validator(mode="after")
    def _rate_form_is_finite(self) -> TradeOff:
        if self.normalize == "rate" and not abs(self.rho) < 80.0:
            raise ValueError(f"normalize='rate' divides by the weight, which ρ = {self.rho} makes 0 or infinite")
        return self


def weighted_sum(config: TradeOff, ce: Tensor, information: Tensor, weight: float) -> Tensor:
    """``ce + weight · information``, for ``normalize="rate"`` divided by the weight at the config's own ρ.

    A weight of 0 drops the information term: 0 times an overflowing rate would be NaN.
    """
    total = ce if weight == 0.0 else ce + weight * information
    return total if config.normalize == "prediction" else total / config.weight()


def rate(codes: Codes, kl_form: str) -> Float[Tensor, "batch"]:
    """R = E[log e(z|x) − log m(z)] per example; closed form where e and m allow one."""
    assert codes.encoder is not None
    assert codes.marginal is not None
    if kl_form == "closed" and isinstance(codes.marginal, Gaussian):
        return kl(codes.encoder, codes.marginal)
    return (codes.log_encoder - codes.marginal.log_prob(codes.exact)).mean(0).to(codes.samples.dtype)


def residual(codes: Codes, labels: Int[Tensor, "batch"], kl_form: str) -> Float[Tensor, "batch"]:
    """ReX = E[log e(z|x) − log b(z|y)] per example; closed form or over the samples.

    Never clamped: single samples are negative where b is broader than e, and clamping would bias the gradient.
    """
    assert codes.encoder is not None
    assert codes.backward is not None
    backward = codes.backward[labels]
    if kl_form == "closed":
        divergence = kl(codes.encoder, backward)
        return divergence if codes.below is None else divergence.mean(0)  # above others: over their samples
    return (codes.log_encoder - backward.log_prob(codes.exact)).mean(0).to(codes.samples.dtype)


def rate_beside(codes: Codes, labels: Int[Tensor, "batch"]) -> dict[str, Any]:
    """What an objective that does not minimise a rate reports of it: R, the consistency gap, and what fits a marginal.

    A marginal is fitted by ``marginal_nll`` on detached codes, which cannot move the encoder; where the model has none,
    the class mixture of b(z|y) serves, and one sample.
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
    """Terms that every objective reports and none minimises; no gradients, one sample."""
    with torch.no_grad():
        found = {
            "accuracy": (codes.predictions() == labels).float().mean(),
            "i_yz_lower": codes.label_entropy - ce.detach(),
        }
        if codes.encoder is not None:
            lower, upper = rate_sandwich(*codes.first_draw)
            found["rate_lower"] = lower.mean()
            if len(labels) > 1:  # a batch of one has no others to compare with: not measured
                found["rate_upper"] = upper.mean()
    return found
