"""Gaussian codes with identity, diagonal or full covariance: densities, samples and closed-form KL divergences.

Covariances are only ever used through their Cholesky factor L (Σ = L·Lᵀ), never inverted.

The log-density of a sample under the Gaussian it was drawn from is computed from its noise
(:meth:`Gaussian.log_prob_of`), never from the sample: rounding z = μ + L·ε to float32 moves it by about 6e-8·|z|, which
L⁻¹ amplifies. For the same reason other Gaussians are evaluated in float64, at z in float64 (:meth:`Gaussian.exact`).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

LOG_2PI = math.log(2.0 * math.pi)


def float32_at_least(x: Tensor) -> Tensor:
    """A tensor in float32 if its dtype is narrower; otherwise unchanged."""
    return x.float() if x.dtype.itemsize < 4 else x


@dataclass(frozen=True)
class Gaussian(ABC):
    """A batch of Gaussians over codes of ``dim`` numbers. ``mean`` is batch × dim."""

    mean: Float[Tensor, "*batch dim"]

    @abstractmethod
    def whiten(self, difference: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
        """L⁻¹·difference; leading dimensions broadcast against the batch."""

    @abstractmethod
    def unwhiten(self, noise: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any dim"]:
        """L·noise; leading dimensions broadcast against the batch."""

    @property
    @abstractmethod
    def log_scale(self) -> Float[Tensor, "*batch"]:
        """ln det L, in nats."""

    @property
    @abstractmethod
    def std(self) -> Float[Tensor, "*batch dim"]:
        """Standard deviation of each coordinate."""

    @property
    def scale_tril(self) -> Float[Tensor, "*batch dim dim"]:
        """L as a matrix."""
        return torch.diag_embed(self.std)

    @property
    def dim(self) -> int:
        """Number of coordinates of a code."""
        return self.mean.shape[-1]

    def sample(self, noise: Float[Tensor, "*samples dim"]) -> Float[Tensor, "*samples dim"]:
        """Reparameterised samples ``mean + L·noise`` from standard normal noise (batch dimensions last but one)."""
        return self.mean + self.unwhiten(noise)

    def exact(self, noise: Float[Tensor, "*samples dim"]) -> Float[Tensor, "*samples dim"]:
        """:meth:`sample` in float64: the code before it is rounded to the dtype of the parameters."""
        return self.double().sample(noise.double())

    def log_prob_of(self, noise: Float[Tensor, "*samples dim"]) -> Float[Tensor, "*samples"]:
        """Log-density of ``sample(noise)`` in nats: −½‖noise‖² − ln det L − ½·dim·ln 2π, exact for any L."""
        return -0.5 * noise.square().sum(-1) - self.log_scale - 0.5 * self.dim * LOG_2PI

    def log_prob(self, codes: Float[Tensor, "*any dim"]) -> Float[Tensor, "*any"]:
        """Log-density in nats and in the dtype of the codes; leading dimensions broadcast against the batch.

        For codes that were rounded to float32 it may be far too low if the covariance is narrow. Pass :meth:`exact`
        codes, and for samples of this Gaussian use :meth:`log_prob_of`.
        """
        own = self if codes.dtype == self.mean.dtype else self.map(lambda parameter: parameter.to(codes.dtype))
        return own.log_prob_of(own.whiten(codes - own.mean))

    @abstractmethod
    def scores(self, codes: Float[Tensor, "*samples n dim"]) -> Float[Tensor, "*samples n members"]:
        """Log-density of every code under every member of a one-dimensional batch, in float64.

        Used for bounds that compare all pairs: matrix products in double precision replace the differences,
        exact to about 1e-8 nats where float32 would lose whole nats at small σ.
        """

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Gaussians of the same family, with a function applied to each parameter tensor."""
        return type(self)(*(function(getattr(self, field.name)) for field in fields(self)))

    def __getitem__(self, index: Tensor | slice | int) -> Self:
        """Select members along the first batch dimension."""
        return self.map(lambda parameter: parameter[index])

    def detach(self) -> Self:
        """The same Gaussians without gradients."""
        return self.map(Tensor.detach)

    def double(self) -> Self:
        """The same Gaussians in float64."""
        return self.map(Tensor.double)


@dataclass(frozen=True)
class IdentityGaussian(Gaussian):
    """Unit covariance: only the mean is learned."""

    def whiten(self, difference: Tensor) -> Tensor:  # noqa: D102
        return difference

    def unwhiten(self, noise: Tensor) -> Tensor:  # noqa: D102
        return noise

    @property
    def log_scale(self) -> Tensor:  # noqa: D102
        return self.mean.new_zeros(self.mean.shape[:-1])

    @property
    def std(self) -> Tensor:  # noqa: D102
        return torch.ones_like(self.mean)

    def scores(self, codes: Tensor) -> Tensor:  # noqa: D102
        z, mean = codes.double(), self.mean.double()
        square = z.square().sum(-1, keepdim=True) - 2.0 * z @ mean.T + mean.square().sum(-1)
        scores: Tensor = -0.5 * (square + self.dim * LOG_2PI)
        return scores


@dataclass(frozen=True)
class DiagonalGaussian(Gaussian):
    """Independent coordinates. The parameter is ``log_std``, which stays finite even if σ underflows."""

    log_std: Float[Tensor, "*batch dim"]

    def whiten(self, difference: Tensor) -> Tensor:  # noqa: D102
        return difference * torch.exp(-self.log_std)

    def unwhiten(self, noise: Tensor) -> Tensor:  # noqa: D102
        return noise * self.std

    def sample(self, noise: Tensor) -> Tensor:  # noqa: D102
        return torch.addcmul(self.mean, self.std, noise)  # one pass instead of two

    @property
    def log_scale(self) -> Tensor:  # noqa: D102
        return self.log_std.sum(-1)

    @cached_property
    def std(self) -> Tensor:  # noqa: D102
        return torch.exp(self.log_std)

    def scores(self, codes: Tensor) -> Tensor:  # noqa: D102
        z, mean, log_std = codes.double(), self.mean.double(), self.log_std.double()
        precision = torch.exp(-2.0 * log_std)
        # −½·((z − μ)/σ)² expanded, with both products of z as one matrix product
        weights = torch.cat([precision, mean * precision], dim=-1)
        products = torch.cat([-0.5 * z.square(), z], dim=-1) @ weights.T
        constant = 0.5 * ((mean.square() * precision).sum(-1) + self.dim * LOG_2PI) + log_std.sum(-1)
        scores: Tensor = products - constant
        return scores


@dataclass(frozen=True)
class FullGaussian(Gaussian):
    """Full covariance through a lower-triangular Cholesky factor with positive diagonal."""

    factor: Float[Tensor, "*batch dim dim"]

    @cached_property
    def _inverse_factor(self) -> Tensor:
        eye = torch.eye(self.dim, dtype=self.factor.dtype, device=self.factor.device)
        inverse: Tensor = torch.linalg.solve_triangular(self.factor, eye.expand_as(self.factor), upper=False)
        return inverse

    def whiten(self, difference: Tensor) -> Tensor:  # noqa: D102
        return torch.einsum("...ij,...j->...i", self._inverse_factor, difference)

    def unwhiten(self, noise: Tensor) -> Tensor:  # noqa: D102
        return torch.einsum("...ij,...j->...i", self.factor, noise)

    @property
    def log_scale(self) -> Tensor:  # noqa: D102
        return self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    @property
    def std(self) -> Tensor:  # noqa: D102
        return self.factor.square().sum(-1).sqrt()

    @property
    def scale_tril(self) -> Tensor:  # noqa: D102
        return self.factor

    def scores(self, codes: Tensor) -> Tensor:  # noqa: D102
        return self.log_prob(codes.double().unsqueeze(-2))


def kl(p: Gaussian, q: Gaussian) -> Float[Tensor, "*batch"]:
    """KL(p ‖ q) in nats, member by member, for any mix of covariance families.

    ½(‖L_q⁻¹·L_p‖²_F + ‖L_q⁻¹(μ_p − μ_q)‖² − dim) + ln det L_q − ln det L_p. For two unit covariances this is
    ½‖μ_p − μ_q‖² exactly. With a full covariance it is computed in float64, and returned in the dtype of ``p``.
    """
    if isinstance(p, FullGaussian) or isinstance(q, FullGaussian):
        return _full_kl(p.double(), q.double()).to(p.mean.dtype)
    distance = q.whiten(p.mean - q.mean).square().sum(-1)
    if isinstance(p, IdentityGaussian) and isinstance(q, IdentityGaussian):
        return 0.5 * distance
    # x − 1 − ln x with x = (σ_p/σ_q)², from ln σ: σ may have underflowed
    double = 2.0 * (_log_std(p) - _log_std(q))
    return 0.5 * (distance + (torch.expm1(double) - double).sum(-1))


def _full_kl(p: Gaussian, q: Gaussian) -> Tensor:
    distance = q.whiten(p.mean - q.mean).square().sum(-1)
    spread = torch.linalg.solve_triangular(q.scale_tril, p.scale_tril, upper=False).square().sum((-2, -1))
    divergence: Tensor = 0.5 * (spread + distance - p.dim) + q.log_scale - p.log_scale
    return divergence


def _log_std(gaussian: Gaussian) -> Tensor:
    return gaussian.log_std if isinstance(gaussian, DiagonalGaussian) else torch.zeros_like(gaussian.mean)


def concatenate(pieces: Sequence[Gaussian]) -> Gaussian:
    """One batch from several of the same family, along the first batch dimension."""
    names = [field.name for field in fields(pieces[0])]
    return type(pieces[0])(*(torch.cat([getattr(piece, name) for piece in pieces]) for name in names))


def side_by_side(parts: Gaussian) -> Gaussian:
    """Independent members along the last batch dimension as one: *batch × parts × dim becomes *batch × parts·dim."""
    if isinstance(parts, FullGaussian):
        count = parts.mean.shape[-2]
        blocks = torch.einsum("...pij,pq->...piqj", parts.factor, torch.eye(count).to(parts.factor))
        return FullGaussian(parts.mean.flatten(-2), blocks.flatten(-2).flatten(-3, -2))
    return type(parts)(*(getattr(parts, field.name).flatten(-2) for field in fields(parts)))
