"""Calls of torch functions with a gradient that follows the result.

Each function returns what torch would, except for casts to a lower precision, with a gradient attached.
:mod:`~isthmus.diagnosis.bpda.surrogates` is the registry of surrogate gradients.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.estimates import with_estimated_gradient
from isthmus.diagnosis.bpda.relaxed import (
    Call,
    as_float,
    as_probability,
    attach_gradient,
    carries_gradient,
    flattened,
    is_floating,
    is_relaxed,
    normalized_name,
)
from isthmus.diagnosis.bpda.surrogates import BY_RELAXATION, EXEMPT, SURROGATES

MIN_SLOPE = 1e-3
"""Smallest slope of an unsaturated function."""


def with_gradient(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], soft_values: bool = False
) -> Any:
    """The result of a function, with a gradient that follows it.

    Args:
        name: torch's name of the function.
        soft_values: whether functions of the registry take the values of their smooth surrogates as well.
    """
    short, in_place, reflected = normalized_name(name)
    surrogate = SURROGATES.get(short)
    concerns = carries_gradient if surrogate and short not in BY_RELAXATION else is_relaxed
    if not any(concerns(x) for x in flattened((args, *options.values()))):
        made = function(*args, **options)
        return made if in_place or surrogate or short in EXEMPT else _of_unknown_function(made, function, args, options)
    if reflected:
        args = (args[1], args[0], *args[2:])
    call = Call(short, _out_of_place(function, in_place, reflected), args, options, soft_values, in_place)
    made = surrogate(call) if surrogate else call.relaxed()
    return _written_back(made, function, args, options) if in_place else made


def _of_unknown_function(
    made: Any, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]
) -> Any:
    """The result of an unknown function, with a gradient if the function cuts it off from its first argument."""
    if not args or not is_floating(args[0]) or not is_floating(made) or made.requires_grad:
        return made
    return with_estimated_gradient(lambda x: function(x, *args[1:], **options), args[0], made)


def _out_of_place(function: Callable[..., Any], in_place: bool, reflected: bool) -> Callable[..., Any]:
    """The function with its operands in order, changing a copy instead of its argument."""
    if reflected:
        return lambda first, second, *rest, **options: function(second, first, *rest, **options)
    if not in_place:
        return function

    def on_a_copy(target: Tensor, *rest: Any, **options: Any) -> Tensor:
        copy = target.clone()
        function(copy, *rest, **options)
        return copy

    return on_a_copy


def _written_back(made: Tensor, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
    """The result, written into the argument that the function would have changed."""
    target: Tensor = args[0]
    if made.shape != target.shape:
        function(*args, **options)
    elif is_floating(target) or target.is_complex():
        return target.copy_(made)
    else:
        target.copy_(made.detach())
    for remembered in ("relaxed", "choice"):
        setattr(target, remembered, getattr(made, remembered, None))
    return target


SATURATION_SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda x, y: y * (1 - y),
    "special_expit": lambda x, y: y * (1 - y),
    "tanh": lambda x, y: 1 - y * y,
    "erf": lambda x, y: 2 / math.sqrt(math.pi) * (-x * x).exp(),
    "special_erf": lambda x, y: 2 / math.sqrt(math.pi) * (-x * x).exp(),
}
"""Slopes of saturating functions y at x."""

SATURATING = {*SATURATION_SLOPES, "softmax", "special_softmax"}


def unsaturated_function(
    function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], soft_values: bool
) -> Any:
    """A saturating function with a slope of at least ``MIN_SLOPE`` (for a softmax, times that of its logarithm).

    Args:
        soft_values: whether a softmax takes the value of its logarithm as well, so that a search makes progress even
            where the softmax is flat.
    """
    found = function(*args, **options)
    name = function.__name__
    if name in SATURATION_SLOPES:
        x = args[0]
        return attach_gradient(SATURATION_SLOPES[name](x, found).clamp(min=MIN_SLOPE).detach() * x, found)
    dim = args[1] if len(args) > 1 else options.get("dim")
    if dim is None:  # torch guesses a dimension then
        return found
    logarithms = args[0].log_softmax(dim)
    return logarithms if soft_values else attach_gradient(found.clamp(min=MIN_SLOPE).detach() * logarithms, found)


def cast_with_gradient(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    options: dict[str, Any],
    precision: torch.dtype,
    soft_values: bool = False,
) -> Any:
    """A tensor cast to another type, with its gradient; floating-point types below this precision are raised to it."""
    given, name = args[0], normalized_name(getattr(function, "__name__", ""))[0]
    call = Call(name, function, args, options, soft_values)
    if not carries_gradient(given):
        return function(*args, **options)
    with torch.no_grad():
        cast = function(*args, **options)
    if not isinstance(cast, Tensor):  # .type() without arguments returns a name
        return cast
    coarser = cast.is_floating_point() and cast.dtype.itemsize < precision.itemsize
    numeric = cast.is_floating_point() or cast.is_complex()
    if not numeric and getattr(given, "choice", None) is None:
        return call.attach(cast, as_probability(given) if cast.dtype == torch.bool else as_float(given))
    if not is_floating(given):
        found = call.relaxed()
        return found.to(precision) if coarser else found
    return given.to(cast.device, precision) if coarser else function(*args, **options)


def view_with_gradient(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The same bits as another type, with the gradient of the identity, so that a masked mantissa has a gradient."""
    with torch.no_grad():
        bits = function(*args, **options)
    return Call("view", function, args, options).attach(bits, as_float(args[0]))


class NumpyRoundTrip:
    """Tensors that were converted to numpy, so that arrays converted back get their gradients."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], Tensor] = {}
        self._rows: dict[tuple[int, ...], tuple[Tensor, int]] = {}  # batches, and the number of rows restored

    def record(self, tensor: Tensor) -> None:
        """Record a tensor that is converted to numpy by its shape, with channels first and last."""
        soft = as_float(tensor)
        if not (is_floating(soft) and soft.requires_grad):
            return
        ways = [soft] if soft.dim() < 3 else [soft.movedim(-1, -3), soft.movedim(-3, -1), soft]
        for way in ways:
            self._last[_squeezed(way.shape)] = way
            if way.dim() > 2:
                self._rows[_squeezed(way.shape[1:])] = way, 0

    def restore(self, tensor: Tensor) -> Tensor:
        """An array from numpy, with the gradient of the last recorded tensor of its shape.

        Arrays of the shape of a row of a recorded tensor count as its rows, in order.
        """
        shape = _squeezed(tensor.shape)
        last = self._last.get(shape)
        if last is None and shape in self._rows:
            batch, count = self._rows[shape]
            self._rows[shape] = batch, count + 1
            last = batch[count % len(batch)]
        if last is None or tensor.dtype == torch.bool or tensor.is_complex() or tensor.numel() < 2:
            return tensor
        soft = last.reshape(tensor.shape)
        if is_floating(tensor):
            return attach_gradient(soft, tensor)
        tensor.relaxed = attach_gradient(soft, tensor.to(soft.dtype))  # type: ignore[attr-defined]
        return tensor


def _squeezed(shape: torch.Size) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
