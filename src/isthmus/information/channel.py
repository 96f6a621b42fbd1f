"""A layer as a Gaussian channel: its capacity, and how many messages fit into its space as spheres.

A signal of mean power P per dimension meets noise of variance N. In n dimensions what is received lies in a ball of
radius √(n(P+N)), and what belongs to one message in a ball of radius √(nN); the ratio of their volumes is the number of
distinguishable messages (Shannon 1948; "A Rate-Distortion Theory of Adversarial Examples", eqs. 1 and 2).
Names that end in ``_bits`` are in bits; the rest are numbers, powers and lengths.
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
"""Activations that are held in float64 at a time."""


@dataclass(frozen=True)
class Channel:
    """n uses of a Gaussian channel at once, with power and noise variance per dimension.

    No noise makes the capacity infinite, no signal makes it 0, with or without noise.

    Raises:
        DataError: fewer than one dimension, or a power or noise that is negative or not finite.
    """

    power: float
    noise: float
    dim: int = 1

    def __post_init__(self) -> None:
        if self.dim < 1 or not (0.0 <= self.power < math.inf and 0.0 <= self.noise < math.inf):
            raise DataError(
                "A channel has a dimension of 1 at least, and a power and a noise variance that are finite and not "
                f"negative; got power {self.power}, noise {self.noise}, dimension {self.dim}."
            )

    @property
    def snr(self) -> float:
        """P/N; infinite without noise, 0 without a signal."""
        if not self.power:
            return 0.0
        return self.power / self.noise if self.noise else math.inf

    @property
    def capacity_bits(self) -> float:
        """C = ½ log₂(1 + P/N), per use, so per dimension (eq. 1)."""
        return 0.5 * math.log1p(self.snr) / math.log(2.0)

    @property
    def messages_bits(self) -> float:
        """log₂ M = n·C: what all dimensions carry together."""
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
        """√(n(P + N)): the ball of all that is received."""
        return math.sqrt(self.dim * (self.power + self.noise))

    @property
    def message_radius(self) -> float:
        """√(nN): the ball that is decoded as one message."""
        return math.sqrt(self.dim * self.noise)


def capacity_bits(power: float, noise: float) -> float:
    """C = ½ log₂(1 + P/N), in bits per use (Shannon 1948; eq. 1): ½ at P = N, 1 at P = 3N, 2 at P = 15N.

    Raises:
        DataError: a power or noise that is negative or not finite.
    """
    return Channel(power, noise).capacity_bits


def rate_bits(messages: float, dim: int) -> float:
    """R = log₂(M)/n: bits per use of a code of M words of length n; beyond C some are confused (§2).

    Raises:
        DataError: fewer than one message or dimension.
    """
    if not messages >= 1.0 or dim < 1:
        raise DataError(f"A code has one word and one dimension at least; got {messages} of dimension {dim}.")
    return math.log2(messages) / dim


def decibels(signal: ArrayLike, noise: ArrayLike) -> Floats:
    """20 log₁₀(1 + ‖x‖/‖δ‖), the signal-to-noise ratio of perturbed inputs (Cissé et al. 2017, as used in §4.4).

    6.02 dB where both are as long, 20.83 where the signal is ten times longer. It falls to 0 as noise grows, and is
    infinite without noise, where there is nothing to average.

    Args:
        signal: ‖x‖ of each example, Euclidean over all pixels.
        noise: ‖δ‖ likewise.

    Raises:
        DataError: a length that is negative or NaN, or an infinite signal.
    """
    x, delta = np.broadcast_arrays(np.asarray(signal, np.float64), np.asarray(noise, np.float64))
    if not ((x >= 0.0) & (x < math.inf) & (delta >= 0.0)).all():
        raise DataError(
            "Lengths of signals and noise are numbers from 0 on, and those of signals finite; some are not."
        )
    ratio = np.divide(x, delta, out=np.full(x.shape, math.inf), where=delta > 0.0)
    found: Floats = 20.0 / math.log(10.0) * np.log1p(ratio)
    return found


def noise_length(signal: ArrayLike, level: ArrayLike) -> Floats:
    """‖δ‖ = ‖x‖/(10^(level/20) − 1): how long noise is at a level in dB; the inverse of :func:`decibels`.

    Raises:
        DataError: a level that is not above 0, or a length that is negative or not finite.
    """
    x, db = np.asarray(signal, np.float64), np.asarray(level, np.float64)
    if not ((x >= 0.0) & (x < math.inf)).all() or not (db > 0.0).all():
        raise DataError("Signals have a finite length from 0 on, and levels are above 0 dB; some do not.")
    lengths: Floats = x / np.expm1(db * (math.log(10.0) / 20.0))
    return lengths


@dataclass(frozen=True)
class LayerChannel(Channel):
    """What a layer's activations look like as a channel that sends labels (our reading of §2 and §3).

    Attributes:
        power: P̂ = mean ‖t − t̄‖²/n over the examples, what weight decay holds down.
        noise: N̂, variance within classes, pooled over examples and dimensions: what does not belong to the message.
        dim: n, units of the layer.
        label_entropy_bits: H(Y) of the labels.
        examples: how many were looked at.
    """

    label_entropy_bits: float = 0.0
    examples: int = 0

    @property
    def excess_capacity_bits(self) -> float:
        """n·Ĉ − H(Y): capacity beyond what the labels need; negative if the labels do not fit."""
        return self.messages_bits - self.label_entropy_bits

    @property
    def between(self) -> float:
        """P̂ − N̂: variance of the class means, by the law of total variance; 0 where classes do not differ."""
        return max(self.power - self.noise, 0.0)

    @property
    def separation_bits(self) -> float:
        """½ log₂(P̂/N̂): the capacity that class means alone use, per dimension.

        P̂ includes noise, so that Ĉ is half a bit if labels and layer are independent; this is then 0.
        """
        return capacity_bits(self.between, self.noise)


def layer_channel(activations: Activations, labels: Activations) -> LayerChannel:
    """P̂, N̂ and n of a layer, from which its capacity, its spheres and its excess capacity follow.

    Args:
        activations: of n examples, n × anything, flattened.
        labels: their classes, integers.

    Raises:
        DataError: activations that are not finite or missing, or labels that do not belong to them.
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
    """Their sum, where what a mean of equal numbers may be off by is none: the quotient of two such sums decides."""
    return float(np.square(deviations, where=np.abs(deviations) > rounding, out=np.zeros_like(deviations)).sum())
