"""Activations between two lines on the interval of their input.

ReLU and leaky ReLU: the chord from above, a line through the origin from below. The slope of the latter may be chosen
freely between those of the two pieces (Zhang et al. 2018, CROWN, arXiv:1811.00866; Xu et al. 2021, α-CROWN,
arXiv:2011.13824). S-shaped functions: chords and tangents, as in CROWN.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from isthmus.certificates.operations import Operation, Pulled
from isthmus.certificates.regions import Box
from isthmus.certificates.rounding import FUNCTION, SPARE, TINY, UNIT

_BISECTIONS = 24


class Lines(NamedTuple):
    """lower_slope · x + lower ≤ f(x) ≤ upper_slope · x + upper, elementwise; ``None`` for an offset of 0."""

    lower_slope: Tensor
    lower: Tensor | None
    upper_slope: Tensor
    upper: Tensor


class Activation(Operation):
    """A monotone function of single numbers."""

    slacked = False
    rounds = True

    @abstractmethod
    def lines(self, box: Box) -> Lines:
        """Two lines that enclose the float32 values of the function on an interval."""

    def pull(self, rows: Float[Tensor, "n r *shape"], inputs: Sequence[Box], slopes: Tensor | None = None) -> Pulled:
        """The lower line for positive coefficients, the upper one for negative ones."""
        lines = self.lines(inputs[0])
        positive = rows > 0
        lower_slope = lines.lower_slope[:, None] if slopes is None else slopes
        pulled = rows * torch.where(positive, lower_slope, lines.upper_slope[:, None])
        if lines.lower is None:  # then the upper offset is not negative, and all terms have one sign
            terms = torch.einsum("nrd,nd->nr", rows.flatten(2).clamp(max=0), lines.upper.flatten(1))
            return Pulled((pulled,), terms * (1 + SPARE))
        offsets = torch.where(positive, lines.lower[:, None], lines.upper[:, None])
        terms = (rows * offsets).flatten(2)
        return Pulled((pulled,), terms.sum(2) - SPARE * terms.abs().sum(2))


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """max(x, slope · x); a ReLU has slope 0.

    Attributes:
        slope: in [0, 1], in float32.
    """

    slope: float = 0.0

    def interval(self, inputs: Sequence[Box]) -> Box:
        """The function of the bounds; ReLU is exact, and the product of leaky ReLU is rounded."""
        low, high = inputs[0]
        return Box(
            torch.where(low > 0, low, self._outward(low, -1)), torch.where(high > 0, high, self._outward(high, 1))
        )

    def _outward(self, x: Tensor, sign: int) -> Tensor:
        if self.slope == 0:
            return torch.zeros_like(x)
        return self.slope * x + sign * (4 * UNIT * self.slope * x.abs() + TINY)

    def lines(self, box: Box) -> Lines:
        """Chord and line through the origin."""
        low, high = box
        on, off = low >= 0, high <= 0
        open_ = ~(on | off)
        below = torch.where(open_, low, -1.0)
        above = torch.where(open_, high, 1.0)
        chord = (above - self.slope * below) / (above - below)
        # ≥ f at both ends whatever the rounding of the slope
        offset = torch.maximum((self.slope - chord) * below, (1 - chord) * above) * (1 + SPARE)
        upper_slope = torch.where(on, 1.0, torch.where(off, self.slope, chord))
        upper = torch.where(open_, offset, 0.0)
        lower_slope = torch.where(open_, torch.where(high > -low, 1.0, self.slope), upper_slope)
        if self.slope == 0:
            return Lines(lower_slope, None, upper_slope, upper)
        rounding = torch.where(on, 0.0, 4 * UNIT * self.slope * low.abs() + TINY)
        return Lines(lower_slope, -rounding, upper_slope, upper + rounding)

    def open(self, box: Box) -> Tensor:
        """Where the sign of the input is not known, so that the lower slope may be chosen in [slope, 1]."""
        return (box.low < 0) & (box.high > 0)


@dataclass(frozen=True)
class SShaped(Activation):
    """tanh or sigmoid: increasing, convex below 0 and concave above.

    Attributes:
        name: "tanh" or "sigmoid".
    """

    name: str

    def interval(self, inputs: Sequence[Box]) -> Box:
        """The function of the bounds."""
        low, high = (self._value(edge) for edge in inputs[0])
        return Box(low - self._error(low), high + self._error(high))

    def lines(self, box: Box) -> Lines:
        """Chord and tangents; see :meth:`_above`."""
        upper_slope, upper = self._above(box.low, box.high)
        # f(x) = −f(−x), or 1 − f(−x): a line below f is one above it, mirrored
        lower_slope, mirrored = self._above(-box.high, -box.low)
        at_zero = 2 * self._value(torch.zeros(())).item()
        slack = self._error(torch.maximum(self._value(box.low).abs(), self._value(box.high).abs()))
        slack = slack + 1e-9 * (upper_slope.abs() + lower_slope.abs()) * box.magnitude + 1e-12 * (1 + box.magnitude)
        return Lines(lower_slope, at_zero - mirrored - slack, upper_slope, upper + slack)

    def _above(self, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Slope and offset of a line above f on [low, high], up to rounding.

        On a convex piece the chord. On a concave piece the tangent at the middle. Across 0: the chord if the slope of f
        at ``high`` is at least its slope (f is then below the chord: convex up to 0, and concave below the tangent at
        ``high`` after it); else the tangent at some d ≥ 0 that is above f at ``low``. Such a tangent is above f on the
        concave piece, and so at 0 and ``low``, between which f is convex. The smallest such d is found by bisection;
        d = ``high`` is always one.
        """
        f_low, f_high = self._value(low), self._value(high)
        width = high - low
        chord = torch.where(width > 1e-9, (f_high - f_low) / width.clamp(min=1e-9), 0.0)
        left, right = torch.zeros_like(high), high.clamp(min=0)
        for _ in range(_BISECTIONS):
            middle = (left + right) / 2
            enough = self._value(middle) + self._slope(middle) * (low - middle) >= f_low
            left, right = torch.where(enough, left, middle), torch.where(enough, middle, right)
        at = torch.where(low >= 0, (low + high) / 2, right)
        slope, offset = self._slope(at), self._value(at) - self._slope(at) * at
        by_chord = (high <= 0) | ((low < 0) & (self._slope(high) >= chord))
        slope = torch.where(by_chord, chord, slope)
        offset = torch.where(by_chord, torch.maximum(f_low - chord * low, f_high - chord * high), offset)
        narrow = width <= 1e-9
        return torch.where(narrow, 0.0, slope), torch.where(narrow, f_high, offset)

    def _value(self, x: Tensor) -> Tensor:
        return torch.tanh(x) if self.name == "tanh" else torch.sigmoid(x)

    def _slope(self, x: Tensor) -> Tensor:
        value = self._value(x)
        return 1 - value.square() if self.name == "tanh" else value * (1 - value)

    @staticmethod
    def _error(value: Tensor) -> Tensor:
        return FUNCTION * value.abs() + TINY
