"""Bounds on I(X;T) from the distances of all pairs of means, where T = mean(x) + Gaussian noise; in nats.

T is a mixture of n equal Gaussians, one for each example. Its entropy has no closed form. H(T|X) − mean_i ln mean_j
e^{−D_ij} is an upper bound on it if D is the Kullback-Leibler divergence of two members, and a lower bound if D is
their Bhattacharyya distance (Kolchinsky & Tracey 2017, "Estimating Mixture Entropy with Pairwise Distances"). For
noise of variance σ² these are ‖μ_i − μ_j‖²/2σ² and ‖μ_i − μ_j‖²/8σ² (Kolchinsky, Tracey & Wolpert 2019, "Nonlinear
Information Bottleneck"). Both bounds are 0 for equal means, at most ln n, and exact for tight clusters far apart.

Everything is computed in float64, in blocks of rows that are recomputed in the backward pass, so memory grows with n
rather than n². If noise differs between examples, use the bounds from samples of :mod:`isthmus.information.rates`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from isthmus.core.errors import DataError

BLOCK = 2**20
"""Number of pairs per block."""

UPPER, LOWER = 2.0, 8.0
"""Divisors of squared distances in units of σ²: Kullback-Leibler divergence and Bhattacharyya distance."""


def upper(
    means: Float[Tensor, "n *dims"],
    noise_variance: Float[Tensor, "*#dims"] | float,
    labels: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """−ln mean_j exp(−‖μ_i − μ_j‖²/2σ²) of every example; for these n inputs their mean is at least I(X;T).

    Differentiable in the means and the variance. As an estimate for a larger set of inputs it is limited to ln n.

    Args:
        means: mean of T for each input; dimensions after the first are flattened.
        noise_variance: σ², one positive number, or one for each unit.
        labels: if given, j runs over examples of the same label only, and the mean is at least I(X;T|Y).

    Raises:
        DataError: no examples, a variance that is not positive, or not one label for each example.
    """
    return _terms(means, noise_variance, labels, UPPER)


def lower(
    means: Float[Tensor, "n *dims"],
    noise_variance: Float[Tensor, "*#dims"] | float,
    labels: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """−ln mean_j exp(−‖μ_i − μ_j‖²/8σ²) of every example, as :func:`upper`; the mean is at most the information."""
    return _terms(means, noise_variance, labels, LOWER)


def label_bounds(
    means: Float[Tensor, "n *dims"], noise_variance: Float[Tensor, "*#dims"] | float, labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """A lower and an upper bound on I(T;Y) = I(X;T) − I(X;T|Y), both in [0, H(Y)].

    Each is the difference of a lower and an upper bound. Studies of the information plane use the difference of two
    upper bounds, ``upper(means, σ²).mean() − upper(means, σ², labels).mean()``, which lies between these bounds but is
    not a bound itself (Saxe et al. 2018).

    Raises:
        DataError: as for :func:`upper`.
    """
    whole, within = ([f(means, noise_variance, y).mean() for f in (lower, upper)] for y in (None, labels))
    entropy = -sum(len(own) / len(labels) * math.log(len(own) / len(labels)) for own in _groups(labels, len(labels)))
    return (whole[0] - within[1]).clamp(0.0, entropy), (whole[1] - within[0]).clamp(0.0, entropy)


def _terms(means: Tensor, noise_variance: Tensor | float, labels: Tensor | None, divisor: float) -> Tensor:
    points = whitened(means, noise_variance)
    if labels is None:
        return -log_mean_kernels(points, divisor)
    found = points.new_zeros(len(points))
    for own in _groups(labels, len(points)):
        found = found.index_put((own,), -log_mean_kernels(points[own], divisor))
    return found


def _groups(labels: Tensor, n: int) -> list[Tensor]:
    """The positions of each label."""
    if labels.shape != (n,):
        raise DataError(f"labels needs one label for each of {n} examples; got shape {tuple(labels.shape)}.")
    return [(labels == label).nonzero().squeeze(1) for label in set(labels.tolist())]


def whitened(means: Float[Tensor, "n *dims"], variance: Float[Tensor, "*#dims"] | float) -> Float[Tensor, "n d"]:
    """Centred means in units of the noise's standard deviation, in float64.

    Raises:
        DataError: no examples, a variance that is not positive, or a number of variances other than 1 or that of units.
    """
    if means.dim() == 0 or not means.numel():
        raise DataError(f"Means must be examples × units, at least one of each; got shape {tuple(means.shape)}.")
    with torch.autocast(means.device.type, enabled=False):
        rows = means.double().reshape(len(means), -1)
        # distances do not change, and rounding errors are smaller
        rows = rows - rows.detach().mean(0)
        given = torch.as_tensor(variance, dtype=torch.float64, device=means.device)
        if given.dim() and given.numel() not in (1, rows.shape[1]):
            raise DataError(
                f"noise_variance needs one number, or one for each of {rows.shape[1]} units; got {given.numel()}."
            )
        if not bool((given > 0.0).all()):
            raise DataError(f"noise_variance must be positive; got {float(given.min())}.")
        return rows / given.reshape(-1).sqrt()


def log_mean_kernels(
    points: Float[Tensor, "n d"], divisor: float = UPPER, leave_one_out: bool = False
) -> Float[Tensor, " n"]:
    """ln mean_j exp(−‖u_i − u_j‖²/divisor) of every point, once differentiable.

    Args:
        points: in float64.
        leave_one_out: omit j = i.

    Raises:
        DataError: ``leave_one_out`` with a single point.
    """
    others = len(points) - leave_one_out
    if not others:
        raise DataError("Leave-one-out needs at least two examples; got 1.")
    sums: Tensor = _LogSumKernels.apply(points, divisor, leave_one_out)  # type: ignore[no-untyped-call]
    return sums - math.log(others)


@torch.no_grad()
def nearest_squared(points: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Squared distance from every point to the nearest other one; infinite for a single point."""
    return torch.cat([-scores.amax(1) for _, scores in _blocks(points, 1.0, True)])


class _LogSumKernels(torch.autograd.Function):
    """Saves only points and sums for the backward pass, which recomputes the blocks of rows."""

    @staticmethod
    def forward(ctx: Any, points: Tensor, divisor: float, leave_one_out: bool) -> Tensor:
        sums = torch.cat([scores.logsumexp(1) for _, scores in _blocks(points, divisor, leave_one_out)])
        ctx.save_for_backward(points, sums)
        ctx.options = divisor, leave_one_out
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        points, sums = ctx.saved_tensors
        pull = torch.zeros_like(points)
        for part, scores in _blocks(points, *ctx.options):
            weights = scores.sub_(sums[part, None]).exp_().mul_(gradient[part, None])
            # the gradient of a pair reaches both of its points
            pull[part] += weights @ points - weights.sum(1)[:, None] * points[part]
            pull += weights.T @ points[part] - weights.sum(0)[:, None] * points
        return pull * (2.0 / ctx.options[0]), None, None


def _blocks(points: Tensor, divisor: float, leave_one_out: bool) -> Iterator[tuple[slice, Tensor]]:
    """−‖u_i − u_j‖²/divisor in blocks of rows i."""
    squares = points.square().sum(-1)
    rows = max(1, BLOCK // len(points))
    for start in range(0, len(points), rows):
        part = slice(start, min(start + rows, len(points)))
        distance2 = torch.addmm(squares, points[part], points.T, alpha=-2.0).add_(squares[part, None])
        scores = distance2.clamp_(min=0.0).div_(-divisor)
        # the distance of a point to itself is 0 despite rounding
        scores.diagonal(start).fill_(-math.inf if leave_one_out else 0.0)
        yield part, scores
