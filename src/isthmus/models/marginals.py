"""Marginals m(z): the standard normal, a learned mixture of full-covariance Gaussians, and mixtures of e and b.

Each is a module from a batch's codes to a density; the first two ignore the codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from isthmus.information.codes import Codes
from isthmus.information.gaussians import Gaussian, IdentityGaussian
from isthmus.information.mixtures import BatchMixture, Mixture
from isthmus.models.gaussian_heads import gaussian, parameters_per_code


class StandardMarginal(nn.Module):
    """m(z) = N(0, I), without parameters."""

    mean: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim), persistent=False)

    def forward(self, codes: Codes | None = None) -> Gaussian:
        """The density."""
        return IdentityGaussian(self.mean)


class MixtureMarginal(nn.Module):
    """m(z) = Σ_k π_k N_k(z) with learned weights, means and full covariances (240 components in Fischer 2020).

    Starts at uniform weights, means from N(0, 1) and unit covariances; 240 components of dim 4 are 240·14 + 240 =
    3,600 parameters.
    """

    def __init__(self, dim: int, components: int = 240) -> None:
        super().__init__()
        self.dim = dim
        raw = torch.zeros(components, parameters_per_code("full", dim))
        raw[:, :dim] = torch.randn(components, dim)
        self.raw = nn.Parameter(raw)
        self.logits = nn.Parameter(torch.zeros(components))

    def forward(self, codes: Codes | None = None) -> Mixture:
        """The density."""
        return Mixture(gaussian(self.raw, "full", self.dim, 1.0), torch.log_softmax(self.logits, dim=0))


class BatchMarginal(nn.Module):
    """m(z) = (1/K) Σ_k e(z|x_k) over the batch, without parameters.

    Args:
        detached: without gradients, for objectives that report a rate and do not minimise it.
    """

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.detached = detached

    def forward(self, codes: Codes) -> BatchMixture:
        """The density, of these codes' encoders."""
        assert codes.encoder is not None
        return BatchMixture(codes.encoder.detach() if self.detached else codes.encoder)


class ClassMarginal(nn.Module):
    """m(z) = Σ_y p(y)·b(z|y), without further parameters.

    Args:
        detached: as in :class:`BatchMarginal`.
    """

    def __init__(self, detached: bool) -> None:
        super().__init__()
        self.detached = detached

    def forward(self, codes: Codes) -> Mixture:
        """The density, of these codes' backward encoders."""
        assert codes.backward is not None
        return Mixture(codes.backward.detach() if self.detached else codes.backward, codes.prior)
