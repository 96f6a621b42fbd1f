"""Mixtures of Gaussians as marginals m(z): learned, or of b(z|y) over the classes, or of e(z|x) over a batch."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.information.gaussians import Gaussian


@dataclass(frozen=True)
class Mixture:
    """Σ_k π_k N_k(z). ``log_weights`` are normalised log π, one per member of ``components``."""

    components: Gaussian
    log_weights: Float[Tensor, "k"]

    def log_prob(self, codes: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any"]:
        """ln Σ_k π_k N_k(z), in nats."""
        return torch.logsumexp(self.log_weights + self.components.log_prob(codes.unsqueeze(-2)), dim=-1)

    def detach(self) -> Mixture:
        """The same mixture without gradients."""
        return Mixture(self.components.detach(), self.log_weights.detach())


@dataclass(frozen=True)
class BatchMixture:
    """(1/K) Σ_k e(z|x_k) over the K images of a batch: an estimate of their marginal from the batch.

    With it, R is the InfoNCE bound on I(X;Z), at most ln K (:mod:`isthmus.information.rates`).
    """

    encoder: Gaussian

    def log_prob(self, codes: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any"]:
        """ln (1/K) Σ_k e(z|x_k), in nats."""
        return (torch.logsumexp(self.encoder.scores(codes), -1) - math.log(len(self.encoder.mean))).to(codes.dtype)

    def detach(self) -> BatchMixture:
        """The same mixture without gradients."""
        return BatchMixture(self.encoder.detach())


def uniform_mixture(components: Gaussian) -> Mixture:
    """Equal weights on every member of a one-dimensional batch."""
    count = components.mean.shape[0]
    return Mixture(components, components.mean.new_full((count,), 1.0 / count).log())
