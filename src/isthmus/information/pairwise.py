"""Bounds on I(X;T) from the distances of all pairs of means, where T = mean(x) + Gaussian noise; in nats.

T is a mixture of n equal Gaussians, one for each example. Its entropy has no closed form, but lies on either side of
H(T|X) − mean_i ln mean_j e^{−D_ij}: below it where D is the Kullback-Leibler divergence of two members, above it where
D is their Bhattacharyya distance (Kolchinsky & Tracey 2017, "Estimating Mixture Entropy with Pairwise Distances"). For
noise of variance σ² these are ‖μ_i − μ_j‖²/2σ² and ‖μ_i − μ_j‖²/8σ² (Kolchinsky, Tracey & Wolpert 2019, "Nonlinear
Information Bottleneck"). Both bounds are 0 for equal means, at most ln n, and exact for tight clusters far apart.

All is computed in float64, a block of rows at a time, and blocks are computed again for the gradient: memory grows with
n rather than with n². Where noise differs between examples, :mod:`isthmus.information.rates` has bounds from samples.
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
"""Pairs that are held at a time."""

UPPER, LOWER = 2.0, 8.0
"""What squared distances in units of σ² are divided by: Kullback-Leibler divergence and Bhattacharyya distance."""


def upper(
    means: Float[Tensor, "n *dims"],
    noise_variance: Float[Tensor, "*#dims"] | float,
    labels: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """−ln mean_j exp(−‖μ_i − μ_j‖²/2σ²) of every example; their mean is at least I(X;T), for these n inputs.

    Differentiable in the means and in the variance. A batch estimates the information of more inputs, with a ceiling of
    ln n.

    Args:
        means: of T given each input; whatever follows the first dimension is flattened.
        noise_variance: σ², one number, or one for each unit, all above 0.
        labels: where given, j runs over examples of the same label alone, and the mean is at least I(X;T|Y).

    Raises:
        DataError: no examples, a variance that is not above 0, or labels that do not belong to the means.
    """
    return _terms(means, noise_variance, labels, UPPER)


def lower(
    means: Float[Tensor, "n *dims"],
    noise_variance: Float[Tensor, "*#dims"] | float,
    labels: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """−ln mean_j exp(−‖μ_i − μ_j‖²/8σ²) of every example: as :func:`upper`, but the mean is at most the information."""
    return _terms(means, noise_variance, labels, LOWER)


def label_bounds(
    means: Float[Tensor, "n *dims"], noise_variance: Float[Tensor, "*#dims"] | float, labels: Int[Tensor, " n"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """A lower and an upper bound on I(T;Y) = I(X;T) − I(X;T|Y), neither outside [0, H(Y)].

    The lower bound of one less the upper bound of the other, and the reverse. Studies of the information plane take the
    difference of two upper bounds, ``upper(means, σ²).mean() − upper(means, σ², labels).mean()``, which lies between
    them but bounds nothing (Saxe et al. 2018).

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
        raise DataError(f"Each of {n} examples has a label; got labels of shape {tuple(labels.shape)}.")
    return [(labels == label).nonzero().squeeze(1) for label in set(labels.tolist())]


def whitened(means: Float[Tensor, "n *dims"], variance: Float[Tensor, "*#dims"] | float) -> Float[Tensor, "n d"]:
    """Means in units of the noise's standard deviation, in float64.

    Raises:
        DataError: no examples, a variance that is not above 0, or one that does not fit the units.
    """
    if means.dim() == 0 or not means.numel():
        raise DataError(f"Means are examples × units, and some of either; got shape {tuple(means.shape)}.")
    with torch.autocast(means.device.type, enabled=False):
        rows = means.double().reshape(len(means), -1)
        # less what distances do not know, which would cost them digits
        rows = rows - rows.detach().mean(0)
        given = torch.as_tensor(variance, dtype=torch.float64, device=means.device)
        if given.dim() and given.numel() not in (1, rows.shape[1]):
            raise DataError(
                f"The noise has one variance, or one for each of {rows.shape[1]} units; got {given.numel()}."
            )
        if not bool((given > 0.0).all()):
            raise DataError(f"The variance of noise is above 0; got {float(given.min())}.")
        return rows / given.reshape(-1).sqrt()


def log_mean_kernels(
    points: Float[Tensor, "n d"], divisor: float = UPPER, leave_one_out: bool = False
) -> Float[Tensor, " n"]:
    """ln mean_j exp(−‖u_i − u_j‖²/divisor) of every point, once differentiable.

    Args:
        points: in float64.
        leave_one_out: without j = i.

    Raises:
        DataError: a single point, and that one left out.
    """
    others = len(points) - leave_one_out
    if not others:
        raise DataError("Leaving one out takes two examples at least; got 1.")
    sums: Tensor = _LogSumKernels.apply(points, divisor, leave_one_out)  # type: ignore[no-untyped-call]
    return sums - math.log(others)


@torch.no_grad()
def nearest_squared(points: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """Squared distance from every point to the nearest other one; infinite for a single point."""
    return torch.cat([-scores.amax(1) for _, scores in _blocks(points, 1.0, True)])


class _LogSumKernels(torch.autograd.Function):
    """Blocks of rows are made once more for the gradient, so that points and sums are all that is kept for it."""

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
            # every pair pulls at both of its ends
            pull[part] += weights @ points - weights.sum(1)[:, None] * points[part]
            pull += weights.T @ points[part] - weights.sum(0)[:, None] * points
        return pull * (2.0 / ctx.options[0]), None, None


def _blocks(points: Tensor, divisor: float, leave_one_out: bool) -> Iterator[tuple[slice, Tensor]]:
    """−‖u_i − u_j‖²/divisor, some rows i at a time."""
    squares = points.square().sum(-1)
    rows = max(1, BLOCK // len(points))
    for start in range(0, len(points), rows):
        part = slice(start, min(start + rows, len(points)))
        distance2 = torch.addmm(squares, points[part], points.T, alpha=-2.0).add_(squares[part, None])
        scores = distance2.clamp_(min=0.0).div_(-divisor)
        # a point is at distance 0 from itself, whatever has been rounded
        scores.diagonal(start).fill_(-math.inf if leave_one_out else 0.0)
        yield part, scores
