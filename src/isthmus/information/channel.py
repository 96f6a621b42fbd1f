"""A layer as a Gaussian channel: its capacity, and how many messages fit into its space as spheres.

A signal of mean power P per dimension has noise of variance N. In n dimensions all received signals lie in a ball of
radius √(n(P+N)), and those of one message in a ball of radius √(nN). The ratio of the volumes is the number of
distinguishable messages (Shannon 1948; "A Rate-Distortion Theory of Adversarial Examples", eqs. 1 and 2). Quantities
whose names end in ``_bits`` are in bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import entr

from isthmus.core.errors import DataError
from isthmus.information.activations import Activations, classes, matrix

Floats = NDArray[np.float64]
BLOCK = 2**22
"""Number of activations per block in float64."""


@dataclass(frozen=True)
class Channel:
    """n parallel uses of a Gaussian channel, with power and noise variance per dimension.

    Without noise the capacity is infinite; without a signal it is 0, even without noise.

    Raises:
        DataError: fewer than one dimension, or a power or noise that is negative or not finite.
    """

    power: float
    noise: float
    dim: int = 1

    def __post_init__(self) -> None:
        if self.dim < 1 or not (0.0 <= self.power < math.inf and 0.0 <= self.noise < math.inf):
            raise DataError(
                "A channel needs a dimension of at least 1 and a finite, non-negative power and noise variance; got "
                f"power {self.power}, noise {self.noise}, dimension {self.dim}."
            )

    @property
    def snr(self) -> float:
        """P/N; infinite without noise, 0 without a signal."""
        if not self.power:
            return 0.0
        return self.power / self.noise if self.noise else math.inf

    @property
    def capacity_bits(self) -> float:
        """C = ½ log₂(1 + P/N), per dimension (eq. 1)."""
        return 0.5 * math.log1p(self.snr) / math.log(2.0)

    @property
    def messages_bits(self) -> float:
        """log₂ M = n·C, the capacity of all dimensions."""
        return self.dim * self.capacity_bits

    @property
    def messages(self) -> float:
        """M = ((P + N)/N)^(n/2), the ratio of the two balls' volumes (eq. 2); infinite beyond 2^1024."""
        try:
            return math.pow(1.0 + self.snr, 0.5 * self.dim)
        except OverflowError:
            return math.inf

    @property
    def radius(self) -> float:
        """√(n(P + N)), the radius of the ball of all received signals."""
        return math.sqrt(self.dim * (self.power + self.noise))

    @property
    def message_radius(self) -> float:
        """√(nN), the radius of the ball that is decoded as one message."""
        return math.sqrt(self.dim * self.noise)


def capacity_bits(power: float, noise: float) -> float:
    """C = ½ log₂(1 + P/N), in bits per use (Shannon 1948; eq. 1): ½ at P = N, 1 at P = 3N, 2 at P = 15N.

    Raises:
        DataError: a power or noise that is negative or not finite.
    """
    return Channel(power, noise).capacity_bits


def rate_bits(messages: float, dim: int) -> float:
    """R = log₂(M)/n, bits per use of a code of M words of length n; above C some words are confused (§2).

    Raises:
        DataError: fewer than one message or dimension.
    """
    if not messages >= 1.0 or dim < 1:
        raise DataError(f"A code needs at least one word and one dimension; got {messages} of dimension {dim}.")
    return math.log2(messages) / dim


def decibels(signal: ArrayLike, noise: ArrayLike) -> Floats:
    """20 log₁₀(1 + ‖x‖/‖δ‖), the signal-to-noise ratio of perturbed inputs (Cissé et al. 2017, as used in §4.4).

    6.02 dB if both norms are equal, 20.83 dB if the signal's is ten times larger. It falls to 0 as noise grows, and is
    infinite without noise.

    Args:
        signal: ‖x‖ of each example, the ℓ2 norm over all pixels.
        noise: ‖δ‖ of each example.

    Raises:
        DataError: a norm that is negative or NaN, or an infinite signal.
    """
    x, delta = np.broadcast_arrays(np.asarray(signal, np.float64), np.asarray(noise, np.float64))
    if not ((x >= 0.0) & (x < math.inf) & (delta >= 0.0)).all():
        raise DataError(
            "Norms of signals and noise must not be negative or NaN, and those of signals must be finite; some are not."
        )
    ratio = np.divide(x, delta, out=np.full(x.shape, math.inf), where=delta > 0.0)
    found: Floats = 20.0 / math.log(10.0) * np.log1p(ratio)
    return found


def noise_length(signal: ArrayLike, level: ArrayLike) -> Floats:
    """‖δ‖ = ‖x‖/(10^(level/20) − 1), the norm of noise at a level in dB; the inverse of :func:`decibels`.

    Raises:
        DataError: a level that is not positive, or a norm that is negative or not finite.
    """
    x, db = np.asarray(signal, np.float64), np.asarray(level, np.float64)
    if not ((x >= 0.0) & (x < math.inf)).all() or not (db > 0.0).all():
        raise DataError("Norms of signals must be finite and not negative, and levels positive; some are not.")
    lengths: Floats = x / np.expm1(db * (math.log(10.0) / 20.0))
    return lengths


@dataclass(frozen=True)
class LayerChannel(Channel):
    """A layer's activations as a channel that sends labels (our interpretation of §2 and §3).

    Attributes:
        power: P̂ = mean ‖t − t̄‖²/n over the examples, which weight decay limits.
        noise: N̂, the variance within classes, pooled over examples and dimensions.
        dim: n, the number of units.
        label_entropy_bits: H(Y) of the labels.
        examples: number of examples.
    """

    label_entropy_bits: float = 0.0
    examples: int = 0

    @property
    def excess_capacity_bits(self) -> float:
        """n·Ĉ − H(Y), the capacity that the labels do not need; negative if they do not fit."""
        return self.messages_bits - self.label_entropy_bits

    @property
    def between(self) -> float:
        """P̂ − N̂, the variance of the class means by the law of total variance; 0 if classes do not differ."""
        return max(self.power - self.noise, 0.0)

    @property
    def separation_bits(self) -> float:
        """½ log₂(P̂/N̂), the capacity per dimension that class means use.

        It is 0 if labels and layer are independent, whereas Ĉ is then half a bit, since P̂ includes noise.
        """
        return capacity_bits(self.between, self.noise)


def layer_channel(activations: Activations, labels: Activations) -> LayerChannel:
    """P̂, N̂ and n of a layer, which determine its capacity, radii and excess capacity.

    Args:
        activations: n × anything, of n examples; flattened.
        labels: integer classes of the examples.

    Raises:
        DataError: there are no activations, they are not finite, or labels are not one integer for each example.
    """
    rows = matrix(activations)
    own = classes(labels, len(rows))
    counts = np.bincount(own)
    members = np.zeros((len(counts), len(rows)))
    members[own, np.arange(len(rows))] = 1.0
    total = within = 0.0
    width = max(1, BLOCK // len(rows))
    for start in range(0, rows.shape[1], width):
        part = rows[:, start : start + width].astype(np.float64)
        rounding = len(rows) * np.finfo(np.float64).eps * np.abs(part).max(0)
        part -= part.mean(0)
        total += _squares(part, rounding)
        part -= (members @ part / counts[:, None])[own]
        within += _squares(part, rounding)
    frequencies = counts / counts.sum()
    return LayerChannel(
        power=float(total / rows.size),
        noise=float(within / rows.size),
        dim=rows.shape[1],
        label_entropy_bits=float(entr(frequencies).sum() / math.log(2.0)),
        examples=len(rows),
    )


def _squares(deviations: Floats, rounding: Floats) -> float:
    """Sum of squares; deviations below the rounding error of a mean count as 0, since quotients of sums are used."""
    return float(np.square(deviations, where=np.abs(deviations) > rounding, out=np.zeros_like(deviations)).sum())
