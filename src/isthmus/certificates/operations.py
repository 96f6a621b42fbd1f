"""Layers as operations that bound their outputs: by intervals, and by linear functions of their inputs.

Each operation encloses the float32 values of its output, given bounds of the float32 values of its inputs; see
:mod:`isthmus.certificates.rounding`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional
from torch.nn.grad import conv2d_input

from isthmus.certificates.regions import Box
from isthmus.certificates.rounding import SPARE, TINY, UNIT, rate

Shape = tuple[int, ...]


class Pulled(NamedTuple):
    """Linear functions of an operation's output, bounded from below by linear functions of its inputs.

    Attributes:
        rows: coefficients for each input, n × r × the input's shape.
        constants: what is added, n × r.
    """

    rows: tuple[Tensor, ...]
    constants: Float[Tensor, "n r"]


class Operation(ABC):
    """One layer. Shapes are those of one example.

    Attributes:
        slacked: whether :meth:`pull` leaves room for float64's rounding of the coefficients that it is given.
        rounds: whether :meth:`pull` rounds the coefficients that it returns without leaving room for that.
    """

    slacked = True
    rounds = False

    @abstractmethod
    def interval(self, inputs: Sequence[Box]) -> Box:
        """Bounds of the output from bounds of the inputs."""

    @abstractmethod
    def pull(self, rows: Float[Tensor, "n r *shape"], inputs: Sequence[Box], slopes: Tensor | None = None) -> Pulled:
        """Bound linear functions of the output from below by linear functions of the inputs.

        Args:
            rows: coefficients of the output.
            inputs: bounds of the inputs.
            slopes: lower slopes of an activation, n × r × shape; None for its usual ones.
        """


@dataclass(frozen=True)
class LinearMap(Operation):
    """x ↦ Wx + b.

    Attributes:
        bias: broadcasts to the output's shape.
        terms: number of products in each output, or an upper bound that allows for further roundings.
    """

    input_shape: Shape
    output_shape: Shape
    bias: Tensor
    terms: int

    @abstractmethod
    def apply(self, x: Float[Tensor, "n *shape"], absolute: bool = False) -> Float[Tensor, "n *out"]:
        """Wx, or |W|x."""

    @abstractmethod
    def transposed(self, rows: Float[Tensor, "k *out"]) -> Float[Tensor, "k *shape"]:
        """rows · W."""

    def rows_of(self, positions: Int[Tensor, " k"]) -> Float[Tensor, "k *shape"]:
        """The rows of W at these positions of the flattened output."""
        one_hot = self.bias.new_zeros(len(positions), *self.output_shape)
        one_hot.flatten(1).scatter_(1, positions[:, None], 1.0)
        return self.transposed(one_hot)

    def interval(self, inputs: Sequence[Box]) -> Box:
        """Interval arithmetic in midpoint and radius."""
        (box,) = inputs
        middle = self.apply((box.low + box.high) / 2) + self.bias
        radius = self.apply((box.high - box.low) / 2, absolute=True) + self.error(box)
        return Box(middle - radius, middle + radius)

    def error(self, box: Box) -> Float[Tensor, "n *out"]:
        """Largest rounding error of each output."""
        size = self.apply(box.magnitude + TINY, absolute=True) + self.bias.abs()
        return rate(self.terms) * size + 2 * self.terms * TINY

    def pull(self, rows: Float[Tensor, "n r *shape"], inputs: Sequence[Box], slopes: Tensor | None = None) -> Pulled:
        """Rows · W; the bias and the rounding errors become constants."""
        (box,) = inputs
        pulled = self.transposed(rows.flatten(0, 1))
        pulled = pulled.view(*rows.shape[:2], *self.input_shape)
        return Pulled((pulled,), self.constants(rows, box))

    def constants(self, rows: Float[Tensor, "n r *shape"], box: Box) -> Float[Tensor, "n r"]:
        """⟨rows, bias⟩ less the largest rounding errors."""
        flat = rows.flatten(2)
        error = self.error(box).flatten(1)
        bias = self.bias.expand(self.output_shape).flatten()
        return flat @ bias - torch.einsum("nrd,nd->nr", flat.abs(), error)

    def pull_rows(self, positions: Int[Tensor, " k"], sign: float, box: Box) -> Pulled:
        """:meth:`pull` of unit vectors times a sign, for one example: n = 1, r = k."""
        error = self.error(box).flatten()[positions]
        bias = self.bias.expand(self.output_shape).flatten()[positions]
        return Pulled((sign * self.rows_of(positions)[None],), (sign * bias - error)[None])


@dataclass(frozen=True)
class Dense(LinearMap):
    """A fully connected layer.

    Attributes:
        weight: output × input features, in float64.
    """

    weight: Tensor

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        """Wx, or |W|x."""
        return functional.linear(x, self.weight.abs() if absolute else self.weight)

    def transposed(self, rows: Tensor) -> Tensor:
        """rows · W."""
        return rows @ self.weight

    def rows_of(self, positions: Tensor) -> Tensor:
        """Rows of the weight."""
        return self.weight[positions] if len(self.output_shape) == 1 else super().rows_of(positions)


@dataclass(frozen=True)
class Convolution(LinearMap):
    """A two-dimensional convolution, padded with zeros."""

    weight: Tensor
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        """Wx, or |W|x."""
        weight = self.weight.abs() if absolute else self.weight
        return functional.conv2d(x, weight, None, self.stride, self.padding, self.dilation, self.groups)

    def transposed(self, rows: Tensor) -> Tensor:
        """rows · W."""
        size = [len(rows), *self.input_shape]
        options = (self.stride, self.padding, self.dilation, self.groups)
        found: Tensor = conv2d_input(size, self.weight, rows, *options)  # type: ignore[no-untyped-call]
        return found

    def rows_of(self, positions: Tensor) -> Tensor:
        """Kernels at their places in the padded image."""
        if self.groups != 1:
            return super().rows_of(positions)
        places = self.output_shape[1] * self.output_shape[2]
        channels, height, width = self.input_shape
        count = channels * height * width
        numbers = torch.arange(1, count + 1, dtype=torch.float64).view(1, channels, height, width)
        kernel = self.weight.shape[2:]
        where = functional.unfold(numbers, kernel, self.dilation, self.padding, self.stride)[0].long().T
        rows = self.weight.new_zeros(len(positions), count + 1)  # column 0 takes the padding
        rows.scatter_(1, where[positions % places].to(rows.device), self.weight.flatten(1)[positions // places])
        return rows[:, 1:].reshape(-1, *self.input_shape)


@dataclass(frozen=True)
class Scaling(LinearMap):
    """Elementwise x · scale + bias: normalisation, batch norm, constants that are added or multiplied."""

    scale: Tensor

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        """scale · x, or |scale| · x."""
        return x * (self.scale.abs() if absolute else self.scale)

    def transposed(self, rows: Tensor) -> Tensor:
        """rows · scale."""
        return rows * self.scale


@dataclass(frozen=True)
class Averaging(LinearMap):
    """Average pooling.

    Attributes:
        function: the pooling; linear, with weights that are not negative.
    """

    function: Callable[[Tensor], Tensor]

    def apply(self, x: Tensor, absolute: bool = False) -> Tensor:
        """Averages."""
        return self.function(x)

    def transposed(self, rows: Tensor) -> Tensor:
        """The gradient of the averages."""
        with torch.enable_grad():
            at = rows.new_zeros(len(rows), *self.input_shape, requires_grad=True)
            (found,) = torch.autograd.grad(self.function(at), at, rows, create_graph=rows.requires_grad)
        return found


@dataclass(frozen=True)
class Reshaping(Operation):
    """Another shape, in the same order of elements."""

    input_shape: Shape
    output_shape: Shape
    slacked = False

    def interval(self, inputs: Sequence[Box]) -> Box:
        """The same bounds."""
        low, high = (edge.reshape(-1, *self.output_shape) for edge in inputs[0])
        return Box(low, high)

    def pull(self, rows: Float[Tensor, "n r *shape"], inputs: Sequence[Box], slopes: Tensor | None = None) -> Pulled:
        """The same coefficients."""
        return Pulled((rows.reshape(*rows.shape[:2], *self.input_shape),), rows.new_zeros(rows.shape[:2]))


@dataclass(frozen=True)
class Sum(Operation):
    """The sum of two layers' outputs, as in residual networks."""

    def interval(self, inputs: Sequence[Box]) -> Box:
        """Sums of the bounds, and one rounding."""
        first, second = inputs
        error = self._error(first, second)
        return Box(first.low + second.low - error, first.high + second.high + error)

    def pull(self, rows: Float[Tensor, "n r *shape"], inputs: Sequence[Box], slopes: Tensor | None = None) -> Pulled:
        """The coefficients of the sum are those of both."""
        error = self._error(*inputs).flatten(1)
        return Pulled((rows, rows), -torch.einsum("nrd,nd->nr", rows.flatten(2).abs(), error))

    @staticmethod
    def _error(first: Box, second: Box) -> Tensor:
        return 2 * UNIT * (first.magnitude + second.magnitude) + TINY


@dataclass(frozen=True)
class MaxPool(Operation):
    """Max pooling: the input with the largest lower bound from below, the largest upper bound from above.

    A window in which one input is always the largest is that input.
    """

    input_shape: Shape
    output_shape: Shape
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    slacked = False
    rounds = True

    def interval(self, inputs: Sequence[Box]) -> Box:
        """Largest bounds."""
        low, high = (self._pooled(edge)[0] for edge in inputs[0])
        return Box(low, high)

    def pull(self, rows: Float[Tensor, "n r *shape"], inputs: Sequence[Box], slopes: Tensor | None = None) -> Pulled:
        """Selected inputs, or constants."""
        (box,) = inputs
        lows, chosen = self._pooled(box.low)
        highs, _ = self._pooled(box.high)
        certain = self._above(box.high, lows) <= 1
        selected = (rows > 0) | certain[:, None]
        flat = torch.where(selected, rows, 0).flatten(2)
        pulled = flat.new_zeros(*rows.shape[:2], box.low[0].numel())
        pulled.scatter_add_(2, chosen.flatten(1)[:, None].expand_as(flat), flat)
        terms = torch.where(selected, 0, rows).flatten(2) * highs.flatten(1)[:, None]
        constants = terms.sum(2) - SPARE * terms.abs().sum(2)
        return Pulled((pulled.view(*rows.shape[:2], *self.input_shape),), constants)

    def _pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maxima, and their places in the flattened input (over all channels)."""
        found, places = functional.max_pool2d(
            x, self.kernel, self.stride, self.padding, self.dilation, return_indices=True
        )
        plane = self.input_shape[1] * self.input_shape[2]
        channel = torch.arange(self.input_shape[0], device=x.device)[:, None, None]
        return found, places + plane * channel

    def _above(self, highs: Tensor, lows: Tensor) -> Tensor:
        """How many inputs of each window have an upper bound of at least the window's largest lower bound."""
        (down, across), channels = self.padding, self.input_shape[0]
        padded = functional.pad(highs, (across, across, down, down), value=-1e300)
        windows = functional.unfold(padded, self.kernel, self.dilation, 0, self.stride)
        windows = windows.view(len(highs), channels, -1, *self.output_shape[1:])
        return (windows >= lows[:, :, None]).sum(2)
