"""Sequences whose predictive information is known: stationary Gaussian autoregressions, cut into past and future.

The predictive information of a process is I(past; future) (Bialek, Nemenman & Tishby 2001). For a Gaussian process it
follows from the canonical correlations of the two windows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.information.jointly_gaussian import canonical_correlations, gaussian_information


@dataclass(frozen=True, eq=False)
class PastFuture:
    """Past and future of independent sequences, cut at the same time step: each n × steps × channels, float32."""

    past: Float[Tensor, "n before channels"]
    future: Float[Tensor, "n after channels"]

    def __len__(self) -> int:
        return len(self.past)


@dataclass(frozen=True)
class Autoregression:
    """x_t = A·x_{t−lag} + ε_t with ε_t ~ N(0, I), in its stationary state.

    Lag 1 is the first-order Markov process. With a larger lag, ``lag`` independent processes alternate, so that only
    the step ``lag`` steps back predicts the next one.

    Attributes:
        matrix: A, rows of channels × channels; all eigenvalues are inside the unit circle.
        lag: distance to the step that the next one depends on.

    Raises:
        ValueError: the matrix is not square, the process is not stationary, or the lag is below 1.
    """

    matrix: tuple[tuple[float, ...], ...]
    lag: int = 1

    def __post_init__(self) -> None:
        if self.lag < 1 or not self.matrix or any(len(row) != len(self.matrix) for row in self.matrix):
            raise ValueError(f"an autoregression needs a square matrix and a lag of 1 or more; got {self}")
        radius = float(np.abs(np.linalg.eigvals(self._a)).max())
        if not radius < 1.0:
            raise ValueError(
                f"a stationary process needs eigenvalues inside the unit circle; the largest is {radius:g}"
            )

    @classmethod
    def scalar(cls, phi: float, lag: int = 1) -> Autoregression:
        """One channel: x_t = φ·x_{t−lag} + ε_t. At lag 1 its predictive information is −½ ln(1 − φ²)."""
        return cls(((phi,),), lag)

    @property
    def channels(self) -> int:
        """Numbers per time step."""
        return len(self.matrix)

    @cached_property
    def _a(self) -> np.ndarray:
        return np.array(self.matrix, dtype=np.float64)

    @cached_property
    def covariance(self) -> Float[np.ndarray, "channels channels"]:
        """Σ = Cov(x_t), which solves Σ = A·Σ·Aᵀ + I."""
        size = self.channels
        solved = np.linalg.solve(np.eye(size * size) - np.kron(self._a, self._a), np.eye(size).ravel())
        sigma: np.ndarray = solved.reshape(size, size)
        symmetric: np.ndarray = (sigma + sigma.T) / 2
        return symmetric

    def sample(self, count: int, past: int, future: int, generator: torch.Generator) -> PastFuture:
        """Independent sequences, each cut after its first ``past`` steps."""
        _check_lengths(past, future)
        noise = torch.randn(count, past + future, self.channels, generator=generator, dtype=torch.float64)
        a, root = torch.from_numpy(self._a), torch.from_numpy(np.linalg.cholesky(self.covariance))
        steps: list[Tensor] = []
        for t in range(past + future):
            start = t < self.lag
            steps.append(noise[:, t] @ root.T if start else steps[t - self.lag] @ a.T + noise[:, t])
        sequence = torch.stack(steps, 1).float()
        return PastFuture(sequence[:, :past], sequence[:, past:])

    def window_covariance(self, steps: int) -> Float[np.ndarray, "steps*channels steps*channels"]:
        """Cov of ``steps`` steps in a row: Cov(x_t, x_{t−k·lag}) = A^k·Σ, and 0 at all other distances."""
        blocks = np.zeros((steps, self.channels, steps, self.channels))
        for later in range(steps):
            for earlier in range(later % self.lag, later + 1, self.lag):
                power = np.linalg.matrix_power(self._a, (later - earlier) // self.lag) @ self.covariance
                blocks[later, :, earlier], blocks[earlier, :, later] = power, power.T
        return blocks.reshape(steps * self.channels, -1)

    def correlations(self, past: int, future: int) -> Float[np.ndarray, " least"]:
        """Canonical correlations of ``past`` steps with the ``future`` ones that follow, largest first."""
        _check_lengths(past, future)
        return canonical_correlations(self.window_covariance(past + future), past * self.channels)

    def predictive_information(self, past: int, future: int) -> float:
        """I(past; future) of such windows, in nats."""
        return gaussian_information(self.correlations(past, future))


def _check_lengths(past: int, future: int) -> None:
    if min(past, future) < 1:
        raise ValueError(f"past and future need at least one step; got {past} and {future}")
