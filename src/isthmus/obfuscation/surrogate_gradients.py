"""Which gradient stands for what has none: steps, signs, comparisons, lookups, casts, saturated probabilities.

Each function gives what torch would, but for casts to a lower precision, with a gradient besides. Nothing here knows
who watches, or when.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SLOPE = 10.0
"""Of the sigmoid that stands for a comparison, at its threshold: four times its steepest derivative."""

LEAST = 1e-3
"""Slope of what is saturated, at least, where gradients are to be unsaturated."""

_STEPS = {"round", "floor", "ceil", "trunc", "fix", "clamp", "clip", "clamp_min", "clamp_max", "hardtanh"}
_REMAINDERS = {"remainder", "fmod", "frac", "__mod__", "__rmod__"}
_SIGNS = {"sign", "sgn"}
_ABOVE = {"gt", "ge", "greater", "greater_equal"}
_BELOW = {"lt", "le", "less", "less_equal"}
_EQUAL = {"eq", "__eq__"}  # mostly with the largest of them
_QUOTIENTS = {"__floordiv__", "floor_divide"}
_ARITHMETIC = {"mul", "add", "sub", "div", "sum", "mean", "matmul", "stack", "cat", "rsub", "lerp", "__rmul__"}
_CHOICES = {"argmax", "max", "amax", "topk", "sort"}
_RESHAPED = {"__getitem__", "select", "squeeze", "unsqueeze", "view", "reshape", "flatten"}
_BITS = {f"{way}{name}__" for name in ("and", "or", "xor", "lshift", "rshift") for way in ("__", "__i", "__r")} | {
    f"bitwise_{name}" for name in ("and", "or", "xor", "left_shift", "right_shift")
}
_LOOKUPS = {"__getitem__": 1, "__setitem__": 1, "take": 1, "take_along_dim": 1, "embedding": 0, "one_hot": 0} | {
    "index_select": 2,
    "gather": 2,
    "scatter": 2,
    "scatter_": 2,
}
"""What takes indices, and at which place among its arguments."""


def followed(
    name: str, function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], valued: bool = False
) -> Any:
    """What a function computes, with a gradient that follows it.

    Args:
        valued: a hard label has the value of what it was chosen from.
    """
    if name in _CHOICES:
        return _chosen_from(function(*args, **options), args[0])
    if name in _RESHAPED and hasattr(args[0], "source"):
        return _chosen_from(function(*args, **options), args[0].source)
    if name in _LOOKUPS:
        return _looked_up(function, _LOOKUPS[name], args, options, valued)
    if name in _BITS and _real(args[0]):
        return through(args[0], function(*map(_whole, args), **options).to(args[0].dtype))
    if name in _STEPS:
        return through(args[0], function(args[0].detach(), *args[1:], **options))
    if name in _REMAINDERS:
        return function(*args, **options).detach()
    if name.endswith("_") and name[:-1] in _STEPS | _SIGNS | _REMAINDERS:
        hard = function(args[0].detach().clone(), *args[1:], **options)
        if name[:-1] in _REMAINDERS:
            return args[0].copy_(hard.detach())
        return args[0].copy_(through(args[0] if name[:-1] in _STEPS else torch.tanh(SLOPE * args[0]), hard))
    if name in _QUOTIENTS:
        return through(args[0] / args[1], function(*args, **options).detach())
    if name in _SIGNS:
        return through(torch.tanh(SLOPE * args[0]), torch.sign(args[0].detach()))
    if name in _ABOVE or name in _BELOW or name in _EQUAL:
        return _compared(function(*args, **options), args, -1.0 if name in _BELOW else 1.0)
    if name == "where" and len(args) == 3:
        return _chosen(function, args)
    return function(*arithmetic(name, args), **options)


class Through(torch.autograd.Function):
    """The value of ``hard``, exactly, even where ``soft`` is infinite."""

    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        """``hard``, and no view of it."""
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """All of it is for ``soft``."""
        return gradients[0], None


def through(soft: Tensor, hard: Tensor) -> Tensor:
    """The value of one with the gradient of the other."""
    exactly: Any = Through.apply
    found: Tensor = exactly(soft, hard)
    return found


def _compared(answer: Any, args: tuple[Any, ...], way: float) -> Any:
    """A comparison's answer, which remembers how near it was."""
    if isinstance(answer, Tensor) and any(isinstance(x, Tensor) and x.is_floating_point() for x in args):
        first, second = (x.float() if isinstance(x, Tensor) else x for x in args[:2])
        largest = getattr(args[1], "source", None) is args[0]
        near = first.softmax(-1) if largest else torch.sigmoid(SLOPE * way * (first - second))
        answer.how_near = near  # type: ignore[attr-defined]
    return answer


def _as_number(mask: Any) -> Any:
    near = getattr(mask, "how_near", None)
    return mask if near is None else through(near, mask.detach().to(near.dtype))


def arithmetic(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Arguments of sums and products, with comparisons as numbers that have a gradient."""
    if name not in _ARITHMETIC:
        return args
    return tuple(type(x)(map(_as_number, x)) if isinstance(x, list | tuple) else _as_number(x) for x in args)


def _chosen(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    """``where``: between two constants, the comparison's own gradient is all there is."""
    mask, first, second = args
    constant = not any(isinstance(x, Tensor) and x.requires_grad for x in (first, second))
    if getattr(mask, "how_near", None) is None or not constant:
        return function(*args)
    return second + _as_number(mask) * (first - second)


def _real(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_floating_point()


def _whole(x: Any) -> Any:
    """Back to integers: a cast to them gave floats, for the sake of their gradient."""
    if isinstance(x, list | tuple):
        return type(x)(map(_whole, x))
    return x.detach().round().long() if _real(x) else x


def _chosen_from(answer: Any, source: Any) -> Any:
    """The largest and their indices, which remember whose they are."""
    for found in answer if isinstance(answer, tuple) else (answer,):
        if isinstance(found, Tensor) and _real(source) and source.dim() > 1:
            found.source = source  # type: ignore[attr-defined]
    return answer


def _looked_up(
    function: Callable[..., Any], place: int, args: tuple[Any, ...], options: dict[str, Any], valued: bool
) -> Any:
    """Entries at some indices; where there is one for each index, with the indices' own gradient besides.

    A hard label that is made from the index of the largest, as large as what it was chosen from, has that one's.
    """
    indices = args[place] if place < len(args) else options.get("index", options.get("indices"))
    answer = function(
        *(_whole(x) if at == place else x for at, x in enumerate(args)),
        **{key: _whole(x) if key in ("index", "indices") else x for key, x in options.items()},
    )
    indices = indices if isinstance(indices, list | tuple) else [indices]
    for source in (i.source for i in indices if hasattr(i, "source") and not i.is_floating_point()):
        made = args[0] if answer is None else answer  # by __setitem__, in place
        if made.shape == source.shape:
            hard = source.clone() if valued else through(source.softmax(-1), made.detach().to(source.dtype))
            in_place = answer is None or function.__name__.endswith("_")
            return made.copy_(hard) if in_place else hard
    for soft in indices:
        if not (isinstance(answer, Tensor) and isinstance(soft, Tensor) and _real(soft)):
            continue
        if soft.shape == answer.shape and answer.dtype != torch.bool:
            found = answer if answer.is_floating_point() else answer.to(soft.dtype)
            return found + (soft - soft.detach()).to(found.dtype)
    return answer


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


def cast(function: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any], precision: torch.dtype) -> Any:
    """A tensor of another type, with its gradient; in no lower a precision than this one."""
    number = _as_number(args[0])
    if not number.is_floating_point():
        return function(*args, **options)
    asked = function(number.detach(), *args[1:], **options)
    if not isinstance(asked, Tensor):  # .type() without arguments names the type
        return asked
    if not (asked.is_floating_point() or asked.is_complex()):
        follows = number.requires_grad and asked.dtype != torch.bool
        return through(number, asked.to(number.dtype)) if follows else asked
    coarser = asked.is_floating_point() and asked.dtype.itemsize < precision.itemsize
    return number.to(asked.device, precision) if coarser else function(number, *args[1:], **options)


def returned(tensor: Tensor, left: dict[torch.Size, Tensor]) -> Tensor:
    """An array that numpy made, with the gradient of the last tensor of its shape that went there."""
    last = left.get(tensor.shape)
    if last is None or tensor.dtype == torch.bool or tensor.is_complex():
        return tensor
    return through(last, tensor if tensor.is_floating_point() else tensor.to(last.dtype))
