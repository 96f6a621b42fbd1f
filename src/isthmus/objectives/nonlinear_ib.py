"""The nonlinear information bottleneck: I(X;Z) from distances between codes, no variational marginal.

Kolchinsky, Tracey & Wolpert 2019 ("Nonlinear information bottleneck", Entropy 21(12)); squared, after Kolchinsky,
Tracey & Van Kuyk 2019 ("Caveats for information bottleneck in deterministic scenarios", ICLR): where the label follows
from the image, all weights but one give trivial codes unless the information is squared.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

import torch
from jaxtyping import Int
from pydantic import Field, model_validator
from torch import Tensor

from isthmus.core.errors import ModelError
from isthmus.core.types import Terms
from isthmus.information import pairwise
from isthmus.information.codes import Codes
from isthmus.information.gaussians import DiagonalGaussian, IdentityGaussian
from isthmus.information.kde import fit_kernel_variance, kde_information
from isthmus.objectives.terms import TradeOff, WeightName, report, weighted_sum

PARTS = frozenset({"encoder", "one_noise"})


class Config(TradeOff):
    """``ce + Î(X;Z)^power / (1 + e^ρ)``; the paper's β is ``rate_weight``.

    Attributes:
        estimate: "upper" is the bound of 2019; "kde" that of 2018, H_KDE(Z) − H(N(0, σ²)), whose kernel's width is
            chosen by leave-one-out likelihood.
        power: 2 is the squared bottleneck, 1 the plain one.
        kernel_points: of "kde": the width is fitted to the codes of this many training images, drawn anew at the start
            of each epoch and kept for the whole of it, as in the code of 2018 (1000 there). 0 fits it to each batch's
            own codes.
    """

    information_weight: ClassVar[WeightName] = "rate_weight"
    across_examples: ClassVar[bool] = True
    name: Literal["nonlinear_ib"] = "nonlinear_ib"
    rho: float = 2.9444  # a rate_weight of 0.05
    estimate: Literal["upper", "kde"] = "upper"
    power: Literal[1, 2] = 2
    kernel_points: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _kernel_of_kde(self) -> Self:
        if self.kernel_points == 1:
            raise ValueError("kernel_points is 0 or at least 2: one point is no neighbour of its own")
        if self.kernel_points and self.estimate != "kde":
            raise ValueError(f"only estimate kde has a kernel, whose width kernel_points fit; got {self.estimate}")
        return self


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """mean[−log c(y|z)] + σ(−ρ)·Î(X;Z)^power, in nats, where Î is of this batch's inputs alone.

    ``rho`` overrides the config's.

    Raises:
        ModelError: e(z|x) has not one noise for all images, or the kernel's width was to be fitted before.
    """
    assert codes.encoder is not None
    weight = config.weight(rho)
    ce = codes.cross_entropy(labels).mean()
    means, variance = codes.encoder.mean, _noise_variance(codes)
    if config.estimate == "upper":
        information = pairwise.upper(means, variance).mean()
    else:
        information = kde_information(means, variance, _kernel_variance(config, codes)).mean()
    information = information.to(ce.dtype)
    with torch.no_grad():
        lower = pairwise.lower(means, variance).mean().to(ce.dtype)
        upper = information if config.estimate == "upper" else pairwise.upper(means, variance).mean().to(ce.dtype)
    return Terms(
        total=weighted_sum(config, ce, information**config.power, weight),
        ce=ce,
        weight=weight,
        pairwise_upper=upper.detach(),
        pairwise_lower=lower,
        **report(codes, labels, ce),
    )


def _kernel_variance(config: Config, codes: Codes) -> float:
    """σ_k², fitted to separate codes before, or to these."""
    assert codes.encoder is not None
    if not config.kernel_points:
        means = codes.encoder.mean.detach()
        return fit_kernel_variance(means) if len(means) > 1 else 0.0
    kernel = math.nan if codes.kernel_variance is None else float(codes.kernel_variance)
    if math.isnan(kernel):
        raise ModelError(
            f"The kernel's width is fitted to {config.kernel_points} separate images at the start of each epoch; "
            "call model.fit_kernel(images) then, or set kernel_points to 0, which fits it to each batch."
        )
    return kernel


def _noise_variance(codes: Codes) -> Tensor | float:
    """σ² of e(z|x), which is the same for all images and coordinates."""
    encoder = codes.encoder
    if isinstance(encoder, DiagonalGaussian):
        return (2.0 * encoder.log_std[..., :1, :1].reshape(())).exp()
    if isinstance(encoder, IdentityGaussian):
        return 1.0
    raise ModelError("The nonlinear bottleneck needs noise that is the same for all images: covariance isotropic.")
