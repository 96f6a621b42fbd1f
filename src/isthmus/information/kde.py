"""I(X;T) in nats from a kernel density estimate, as in the nonlinear information bottleneck of 2018.

The estimate puts a Gaussian of variance σ² + σ_k² on the mean of every example, wider than the noise with its σ², so
that the estimate also covers unseen inputs. With σ_k = 0 it is :func:`isthmus.information.pairwise.upper`. The width
σ_k² maximises the likelihood of the means, each given the others (Kolchinsky, Tracey & Wolpert, arXiv:1705.02436,
and their code of 2018; leave-one-out likelihood: Duin 1976).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.core.errors import DataError
from isthmus.information import pairwise

STEPS = 16
"""Number of widths on a logarithmic grid, the best of which is then refined."""
TWINS = 1e-12
"""Points count as equal if their squared distance is below this fraction of the mean squared distance."""


def kde_information(
    means: Float[Tensor, "n *dims"], noise_variance: Float[Tensor, ""] | float, kernel_variance: float
) -> Float[Tensor, " n"]:
    """Terms of Î(X;T) = H_KDE(T; σ² + σ_k²) − H(N(0, σ²)); differentiable in the means and the noise variance.

    H_KDE = d/2·ln(2πe(σ² + σ_k²)) − mean_i ln mean_j exp(−‖μ_i − μ_j‖²/2(σ² + σ_k²)) is at least the entropy of T for
    these n inputs, so the mean of the terms is at least I(X;T). Unlike the bounds of 2019 it is not limited to ln n:
    the maximum is larger by d/2·ln(1 + σ_k²/σ²).

    Args:
        means: mean of T for each input, flattened to n × d.
        noise_variance: σ², positive.
        kernel_variance: σ_k², not negative.

    Raises:
        DataError: no examples, a noise variance that is not one positive number, or a negative kernel variance.
    """
    if not 0.0 <= kernel_variance < math.inf:
        raise DataError(f"kernel_variance must be finite and not negative; got {kernel_variance}.")
    noise = torch.as_tensor(noise_variance, dtype=torch.float64, device=means.device)
    if noise.numel() != 1 or not bool((noise > 0.0).all()):
        raise DataError(f"noise_variance must be one positive number; got {noise.tolist()}.")
    total = noise.reshape(()) + kernel_variance
    terms = pairwise.upper(means, total)
    return terms + 0.5 * means[0].numel() * (total / noise.reshape(())).log()


def leave_one_out(points: Float[Tensor, "n *dims"], variance: Float[Tensor, ""] | float) -> Float[Tensor, " n"]:
    """ln 1/(n−1) Σ_{j≠i} N(x_i; x_j, variance·I): the log-likelihood of every point given the others, differentiable.

    Raises:
        DataError: fewer than two points, or a variance that is not positive.
    """
    terms = pairwise.log_mean_kernels(pairwise.whitened(points, variance), leave_one_out=True)
    log_variance = torch.as_tensor(variance, dtype=torch.float64, device=points.device).reshape(()).log()
    return terms - 0.5 * points[0].numel() * (math.log(2.0 * math.pi) + log_variance)


@torch.no_grad()
def fit_kernel_variance(points: Float[Tensor, "n *dims"]) -> float:
    """σ_k² that maximises the mean of :func:`leave_one_out`; 0 if every point has a duplicate, so that there is no
    maximum.

    At a maximum d·σ_k² is a mean of squared distances between points, weighted by the kernel: at least the mean over
    nearest neighbours, and at most the mean over all pairs. The best of :data:`STEPS` widths between the two is refined
    to 0.1%. This takes about 30 passes over all pairs; one or two thousand points suffice.

    Args:
        points: means of T, at least two, flattened to n × d.

    Raises:
        DataError: fewer than two points, or points that are not finite.
    """
    rows = pairwise.whitened(points, 1.0)
    if len(rows) < 2 or not bool(rows.isfinite().all()):
        raise DataError(f"Fitting a kernel width needs at least two finite points; got {len(rows)} points.")
    d = rows.shape[1]
    most = float(rows.square().sum(-1).mean()) * 2.0 * len(rows) / (len(rows) - 1) / d
    least = pairwise.nearest_squared(rows).mean().item() / d
    if least <= TWINS * most:
        return 0.0

    def loss(log_variance: float) -> float:
        kernels = pairwise.log_mean_kernels(rows, 2.0 * math.exp(log_variance), leave_one_out=True)
        return 0.5 * d * log_variance - float(kernels.mean())

    grid = np.linspace(math.log(least), math.log(most), STEPS)
    best = int(np.argmin([loss(each) for each in grid]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, STEPS - 1)]
    if around[1] - around[0] < 1e-3:
        return math.exp(grid[best])
    from scipy.optimize import minimize_scalar  # it takes a third of a second to import

    return math.exp(minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-3}).x)
