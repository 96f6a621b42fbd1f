"""The nonlinear information bottleneck: I(X;Z) from distances between codes, without a variational marginal.

Kolchinsky, Tracey & Wolpert 2019 ("Nonlinear information bottleneck", Entropy 21(12)); squared, after Kolchinsky,
Tracey & Van Kuyk 2019 ("Caveats for information bottleneck in deterministic scenarios", ICLR): if the image determines
the label, all weights but one give trivial codes unless the information is squared.
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
from isthmus.objectives.objective import InformationObjective, WeightName, report


class NonlinearIB(InformationObjective):
    """``ce + Î(X;Z)^power / (1 + e^ρ)``; the paper's β is ``rate_weight``.

    Attributes:
        estimate: "upper" is the bound of 2019; "kde" is that of 2018, H_KDE(Z) − H(N(0, σ²)), whose kernel width is
            chosen by leave-one-out likelihood.
        power: 2 is the squared bottleneck, 1 the plain one.
        kernel_points: for "kde": fit the width to the codes of this many training images, drawn at the start of each
            epoch and kept for all of it, as in the code of 2018 (1000 there). 0 fits it to each batch's codes.
    """

    information_weight: ClassVar[WeightName] = "rate_weight"
    uses_shared_noise: ClassVar[bool] = True
    across_examples: ClassVar[bool] = True
    name: Literal["nonlinear_ib"] = "nonlinear_ib"
    rho: float = 2.9444  # a rate_weight of 0.05
    estimate: Literal["upper", "kde"] = "upper"
    power: Literal[1, 2] = 2
    kernel_points: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _kernel_of_kde(self) -> Self:
        if self.kernel_points == 1:
            raise ValueError("kernel_points must be 0 or at least 2: a single point has no neighbour")
        if self.kernel_points and self.estimate != "kde":
            raise ValueError(f"kernel_points needs estimate kde, which alone has a kernel; got {self.estimate}")
        return self

    @property
    def kernel_images(self) -> int:
        """``kernel_points``."""
        return self.kernel_points

    def terms(self, codes: Codes, labels: Int[Tensor, "batch"], rho: float | None = None) -> Terms:
        """mean[−log c(y|z)] + σ(−ρ)·Î(X;Z)^power, in nats, where Î is the information about this batch's inputs.

        Raises:
            ModelError: the noise of e(z|x) differs between images, or the kernel width has not been fitted.
        """
        assert codes.encoder is not None
        weight = self.weight(rho)
        ce = codes.cross_entropy(labels).mean()
        means, variance = codes.encoder.mean, _noise_variance(codes)
        if self.estimate == "upper":
            information = pairwise.upper(means, variance).mean()
        else:
            information = kde_information(means, variance, self._kernel_variance(codes)).mean()
        information = information.to(ce.dtype)
        with torch.no_grad():
            lower = pairwise.lower(means, variance).mean().to(ce.dtype)
            upper = information if self.estimate == "upper" else pairwise.upper(means, variance).mean().to(ce.dtype)
        return Terms(
            total=self.total(ce, information**self.power, weight),
            ce=ce,
            weight=weight,
            pairwise_upper=upper.detach(),
            pairwise_lower=lower,
            **report(codes, labels, ce),
        )

    def _kernel_variance(self, codes: Codes) -> float:
        """σ_k², fitted to separate codes or to these."""
        assert codes.encoder is not None
        if not self.kernel_points:
            means = codes.encoder.mean.detach()
            return fit_kernel_variance(means) if len(means) > 1 else 0.0
        kernel = math.nan if codes.kernel_variance is None else float(codes.kernel_variance)
        if math.isnan(kernel):
            raise ModelError(
                f"The kernel width is fitted to {self.kernel_points} separate images at the start of each epoch; "
                "call model.fit_kernel(images) first, or set kernel_points to 0 to fit it to each batch."
            )
        return kernel


def _noise_variance(codes: Codes) -> Tensor | float:
    """σ² of e(z|x), the same for all images and coordinates."""
    encoder = codes.encoder
    if isinstance(encoder, DiagonalGaussian):
        return (2.0 * encoder.log_std[..., :1, :1].reshape(())).exp()
    if isinstance(encoder, IdentityGaussian):
        return 1.0
    raise ModelError("The nonlinear bottleneck needs the same noise for all images: use covariance isotropic.")
