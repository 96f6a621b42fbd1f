"""The nonlinear information bottleneck: I(X;Z) from distances between codes, no variational marginal.

Kolchinsky, Tracey & Wolpert 2019 ("Nonlinear information bottleneck", Entropy 21(12)); squared, after Kolchinsky,
Tracey & Van Kuyk 2019 ("Caveats for information bottleneck in deterministic scenarios", ICLR): where the label follows
from the image, all weights but one give trivial codes unless the information is squared.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Int
from torch import Tensor

from isthmus.errors import ModelError
from isthmus.information import pairwise
from isthmus.information.codes import Codes
from isthmus.information.gaussians import DiagonalGaussian, IdentityGaussian
from isthmus.information.kde import fit_kernel_variance, kde_information
from isthmus.objectives.terms import TradeOff, WeightName, report, weighted_sum
from isthmus.types import Terms

PARTS = frozenset({"encoder", "one_noise"})


class Config(TradeOff):
    """``ce + Î(X;Z)^power / (1 + e^ρ)``; the paper's β is ``rate_weight``.

    Attributes:
        estimate: "upper" is the bound of 2019; "kde" that of 2018, H_KDE(Z) − H(N(0, σ²)), whose kernel's width is
            fitted to each batch by leave-one-out likelihood.
        power: 2 is the squared bottleneck, 1 the plain one.
    """

    information_weight: ClassVar[WeightName] = "rate_weight"
    across_examples: ClassVar[bool] = True
    name: Literal["nonlinear_ib"] = "nonlinear_ib"
    rho: float = 2.9444  # a rate_weight of 0.05
    estimate: Literal["upper", "kde"] = "upper"
    power: Literal[1, 2] = 2


def terms(config: Config, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
    """mean[−log c(y|z)] + σ(−ρ)·Î(X;Z)^power, in nats, where Î is of this batch's inputs alone.

    ``rho`` overrides the config's.

    Raises:
        ModelError: e(z|x) has not one noise for all images.
    """
    assert codes.encoder is not None
    weight = config.weight(rho)
    ce = codes.cross_entropy(labels).mean()
    means, variance = codes.encoder.mean, _noise_variance(codes)
    if config.estimate == "upper":
        information = pairwise.upper(means, variance).mean()
    else:
        kernel = fit_kernel_variance(means.detach()) if len(means) > 1 else 0.0
        information = kde_information(means, variance, kernel).mean()
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


def _noise_variance(codes: Codes) -> Tensor | float:
    """σ² of e(z|x), which is the same for all images and coordinates."""
    encoder = codes.encoder
    if isinstance(encoder, DiagonalGaussian):
        return (2.0 * encoder.log_std[..., :1, :1].reshape(())).exp()
    if isinstance(encoder, IdentityGaussian):
        return 1.0
    raise ModelError("The nonlinear bottleneck needs noise that is the same for all images: covariance isotropic.")
