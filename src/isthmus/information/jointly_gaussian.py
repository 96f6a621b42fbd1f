"""Jointly Gaussian variables: their information and the optimal bottleneck, in closed form.

Linear maps of two blocks U and V of a Gaussian vector turn them into independent pairs with correlations r_1 ≥ r_2 ≥ …,
the canonical correlations (Hotelling 1936). Information and the exact bottleneck are sums over the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "dim dim"]


def canonical_correlations(covariance: Matrix, first: int) -> Float[np.ndarray, " least"]:
    """Canonical correlations of the first ``first`` coordinates with the others, largest first, in [0, 1].

    Raises:
        ValueError: the covariance is not symmetric, has no coordinates on one side, or is singular within a side.
    """
    matrix = np.asarray(covariance, dtype=np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1]
    if not square or not 0 < first < len(matrix) or not np.allclose(matrix, matrix.T):
        raise ValueError(
            f"canonical correlations need a symmetric matrix and 0 < first < its size; got {matrix.shape} and {first}"
        )
    try:
        left, right = np.linalg.cholesky(matrix[:first, :first]), np.linalg.cholesky(matrix[first:, first:])
    except np.linalg.LinAlgError:
        raise ValueError("canonical correlations need a positive definite covariance; this one is not") from None
    whitened = np.linalg.solve(right, np.linalg.solve(left, matrix[:first, first:]).T)
    return np.clip(np.linalg.svd(whitened, compute_uv=False), 0.0, 1.0)


def gaussian_information(correlations: Sequence[float] | Float[np.ndarray, " n"]) -> float:
    """I(U;V) = −½ Σ ln(1 − r²) in nats, for pairs with these canonical correlations; inf if one is 1."""
    squares = np.square(np.asarray(correlations, dtype=np.float64))
    return math.inf if (squares >= 1.0).any() else float(0.5 * -np.log1p(-squares).sum() + 0.0)


@dataclass(frozen=True)
class Optimum:
    """An optimum of the bottleneck: information of the code about the input and about the target, in nats."""

    i_xz: float
    i_yz: float

    @property
    def i_xz_given_y(self) -> float:
        """I(X;Z|Y) = I(X;Z) − I(Y;Z), the residual information of CEB."""
        return self.i_xz - self.i_yz


def gaussian_bottleneck(correlations: Sequence[float] | Float[np.ndarray, " n"], rho: float) -> Optimum:
    """The exact optimum of IB and CEB at ρ for jointly Gaussian X and Y (Chechik et al. 2005, eqs. 15 and 26).

    With γ = e^ρ and β_IB = 1 + γ, a pair with correlation r is used if β_IB·r² > 1. It contributes
    ½ ln[γ·r²/(1 − r²)] to I(X;Z), and the same minus ½ ln(β_IB·r²) to I(Y;Z).

    Raises:
        ValueError: a correlation is not in [0, 1).
    """
    squares = np.square(np.asarray(correlations, dtype=np.float64))
    if not ((squares >= 0.0) & (squares < 1.0)).all():
        raise ValueError(f"correlations must be in [0, 1); got {correlations}")
    gamma = math.exp(rho)
    used = squares[(1.0 + gamma) * squares > 1.0]
    i_xz = 0.5 * np.log(gamma * used / (1.0 - used)).sum()
    return Optimum(float(i_xz), float(i_xz - 0.5 * np.log((1.0 + gamma) * used).sum()))
