"""What a function computes, with a gradient that follows it: functions of the registry, casts, saturated probabilities.

Each function gives what torch would, but for casts to a lower precision, with a gradient besides. Nothing here knows
who watches, or when. :mod:`~isthmus.diagnosis.bpda.surrogates` is the registry.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from isthmus.diagnosis.bpda.estimates import substituted
from isthmus.diagnosis.bpda.relaxed import Call, each, is_alive, is_real, is_relaxed, number, plain, through, truth
from isthmus.diagnosis.bpda.surrogates import BY_RELAXATION, EXEMPT, SURROGATES

LEAST = 1e-3
"""Slope of what is saturated, at least, where gradients are to be unsaturated."""


def followed(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], valued: bool = False
) -> Any:
    """What a function computes, with a gradient that follows it.

    Args:
        name: the function's, as torch has it.
        valued: results of the registry's functions have the values of their smooth surrogates, too.
    """
    short, in_place, reflected = plain(name)
    surrogate = SURROGATES.get(short)
    concerns = is_alive if surrogate and short not in BY_RELAXATION else is_relaxed
    if not any(concerns(x) for x in each((args, *options.values()))):
        made = function(*args, **options)
        return made if in_place or surrogate or short in EXEMPT else _known(made, function, args, options)
    if reflected:
        args = (args[1], args[0], *args[2:])
    call = Call(short, _pure(function, in_place, reflected), args, options, valued, in_place)
    made = surrogate(call) if surrogate else call.relaxed()
    return _written_back(made, function, args, options) if in_place else made


def _known(made: Any, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """A result that an unknown function has cut off from its first argument, with a gradient all the same."""
    if not args or not is_real(args[0]) or not is_real(made) or made.requires_grad:
        return made
    return substituted(lambda x: function(x, *args[1:], **options), args[0], made)


def _pure(function: Callable[..., Any], in_place: bool, reflected: bool) -> Callable[..., Any]:
    """The function with its operands in order, on a copy of what it would change."""
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
    """What was computed on a copy, in the memory of the original."""
    target: Tensor = args[0]
    if made.shape != target.shape:
        function(*args, **options)
    elif is_real(target) or target.is_complex():
        return target.copy_(made)
    else:
        target.copy_(made.detach())
    for remembered in ("relaxed", "choice"):
        setattr(target, remembered, getattr(made, remembered, None))
    return target


SQUASHING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda x, y: y * (1 - y),
    "special_expit": lambda x, y: y * (1 - y),
    "tanh": lambda x, y: 1 - y * y,
    "erf": lambda x, y: 2 / math.sqrt(math.pi) * (-x * x).exp(),
    "special_erf": lambda x, y: 2 / math.sqrt(math.pi) * (-x * x).exp(),
}
"""Functions that saturate, with their slope at x where they are y."""

SATURATING = {*SQUASHING, "softmax", "special_softmax"}


def unsaturated(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], valued: bool) -> Any:
    """What saturates, with a slope of no less than ``LEAST`` (of a softmax: times its logarithm's).

    Args:
        valued: a softmax has its logarithm's value, too, so that whoever searches can tell better from worse where
            its own is flat.
    """
    found = function(*args, **options)
    name = function.__name__
    if name in SQUASHING:
        x = args[0]
        return through(SQUASHING[name](x, found).clamp(min=LEAST).detach() * x, found)
    dim = args[1] if len(args) > 1 else options.get("dim")
    if dim is None:  # the old guess of a dimension
        return found
    logarithms = args[0].log_softmax(dim)
    return logarithms if valued else through(found.clamp(min=LEAST).detach() * logarithms, found)


def cast(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    options: dict[str, Any],
    precision: torch.dtype,
    valued: bool = False,
) -> Any:
    """A tensor of another type, with its gradient; of floating-point numbers in no lower a precision than this one."""
    given, name = args[0], plain(getattr(function, "__name__", ""))[0]
    call = Call(name, function, args, options, valued)
    if not is_alive(given):
        return function(*args, **options)
    with torch.no_grad():
        asked = function(*args, **options)
    if not isinstance(asked, Tensor):  # .type() without arguments names the type
        return asked
    coarser = asked.is_floating_point() and asked.dtype.itemsize < precision.itemsize
    if not is_real(given):
        whole = not (asked.is_floating_point() or asked.is_complex() or getattr(given, "choice", None) is not None)
        found = (
            call.attach(asked, truth(given) if asked.dtype == torch.bool else number(given))
            if whole
            else call.relaxed()
        )
        return found.to(precision) if coarser else found
    if not (asked.is_floating_point() or asked.is_complex()):
        return call.attach(asked, truth(given) if asked.dtype == torch.bool else number(given))
    return given.to(asked.device, precision) if coarser else function(*args, **options)


def reinterpreted(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """The same bits as another type, with the gradient of the identity: masks of mantissas let gradients through."""
    with torch.no_grad():
        bits = function(*args, **options)
    return Call("view", function, args, options).attach(bits, number(args[0]))


class Outside:
    """Tensors that went to numpy, so that arrays which come back can have their gradients."""

    def __init__(self) -> None:
        self._last: dict[tuple[int, ...], Tensor] = {}
        self._rows: dict[tuple[int, ...], tuple[Tensor, int]] = {}  # of whole batches, with how many rows came back

    def leaves(self, tensor: Tensor) -> None:
        """Remember a tensor that goes to numpy, under its shape; with its channels first or last, too."""
        soft = number(tensor)
        if not (is_real(soft) and soft.requires_grad):
            return
        ways = [soft] if soft.dim() < 3 else [soft.movedim(-1, -3), soft.movedim(-3, -1), soft]
        for way in ways:
            self._last[_squeezed(way.shape)] = way
            if way.dim() > 2:
                self._rows[_squeezed(way.shape[1:])] = way, 0

    def returned(self, tensor: Tensor) -> Tensor:
        """An array from numpy, with the gradient of the last tensor of its shape that went there.

        Arrays of the shape of a row of such a tensor are taken for its rows, in their order.
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
        if is_real(tensor):
            return through(soft, tensor)
        tensor.relaxed = through(soft, tensor.to(soft.dtype))  # type: ignore[attr-defined]
        return tensor


def _squeezed(shape: torch.Size) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
